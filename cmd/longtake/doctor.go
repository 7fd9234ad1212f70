package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"longtake/compute/cpu"
	"longtake/model"
	"longtake/rollout"
	"longtake/video"
	"longtake/video/metric"
)

// testPSNR is how close, in dB, the frames of every kernel class must be to those of plain Go.
const testPSNR = 40

// doctorCommand looks at the machine.
type doctorCommand struct {
	Frames int  `default:"4" help:"Frames that the self-test makes by every kernel class. Default ${default}."`
	JSON   bool `name:"json" help:"Print one JSON object."`
}

// diagnosis is what doctor finds.
type diagnosis struct {
	Tool    toolRecord   `json:"tool"`
	Host    hostRecord   `json:"host"`
	CPU     string       `json:"cpu,omitempty"`
	Threads int          `json:"threads"`
	Memory  memoryInfo   `json:"memory"`
	Kernels []string     `json:"kernels"` // best first
	GPUs    []string     `json:"gpus"`    // what CUDA finds, or why nothing
	FFmpeg  string       `json:"ffmpeg,omitempty"`
	Cache   string       `json:"cache_folder,omitempty"`
	Tests   []kernelTest `json:"tests"`
	Healthy bool         `json:"healthy"`
}

type memoryInfo struct {
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
}

// kernelTest is the self-test of one kernel class.
type kernelTest struct {
	Kernel string  `json:"kernel"`
	FPS    float64 `json:"fps"`
	PSNR   float64 `json:"psnr,omitempty"` // against the portable class; absent where all frames are equal
	Equal  bool    `json:"equal"`
	// Parts are what a GPU's kernels reached before the frames were made.
	Parts []string `json:"parts,omitempty"`
	Error string   `json:"error,omitempty"`
}

// Run examines the machine and fails if a kernel class does not make the right frames.
func (c *doctorCommand) Run(ctx context.Context, out *streams) error {
	if c.Frames < 1 || c.Frames > 1000 {
		return usagef("--frames %d: must be between 1 and 1000", c.Frames)
	}
	d := diagnosis{Tool: tool(), Host: hostRecord{runtime.GOOS, runtime.GOARCH, runtime.NumCPU()},
		CPU: cpuName(), Threads: runtime.GOMAXPROCS(0), Kernels: cpu.Kernels()}
	if dev, err := cpu.New(cpu.Options{}); err == nil {
		m := dev.Memory()
		d.Memory = memoryInfo{m.Total, m.Free}
		dev.Close()
	}
	var found int
	d.GPUs, found = gpus()
	d.FFmpeg, _ = exec.LookPath("ffmpeg")
	if dir, err := os.UserCacheDir(); err == nil {
		d.Cache = filepath.Join(dir, "longtake")
	}
	if !c.JSON {
		d.describe(out.out)
	}
	d.Healthy = true
	var want []video.Frame
	tested := slices.Clone(d.Kernels)
	slices.Reverse(tested) // the portable class, the reference, is the last
	for i := range found {
		tested = append(tested, fmt.Sprintf("cuda:%d", i))
	}
	for _, kernel := range tested {
		t, frames := testKernel(ctx, kernel, c.Frames, want)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if want == nil {
			want = frames
		}
		d.Tests, d.Healthy = append(d.Tests, t), d.Healthy && t.Error == ""
		if !c.JSON {
			fmt.Fprintln(out.out, t)
		}
	}
	if c.JSON {
		if _, err := out.out.Write(jsonText(d)); err != nil {
			return err
		}
	}
	if !d.Healthy {
		return errors.New("the self-test failed: choose what passed with --device and --cpu-kernel, and report this")
	}
	return nil
}

func (d *diagnosis) describe(w io.Writer) {
	ffmpeg, cores := d.FFmpeg, d.CPU
	if ffmpeg == "" {
		ffmpeg = "not found on PATH: .mp4 cannot be written, .webm .gif .y4m and PNG can"
	}
	if cores == "" {
		cores = "unknown processor"
	}
	fmt.Fprintf(w, "longtake  %s, %s\n", d.Tool.Version, d.Tool.Go)
	fmt.Fprintf(w, "system    %s/%s, %s, %d cores, %d threads used\n", d.Host.OS, d.Host.Arch, cores, d.Host.CPUs, d.Threads)
	if d.Memory.Total > 0 {
		fmt.Fprintf(w, "memory    %s, %s free\n", bytesText(d.Memory.Total), bytesText(d.Memory.Free))
	}
	fmt.Fprintf(w, "kernels   %s (the first is used)\n", strings.Join(d.Kernels, ", "))
	for i, line := range d.GPUs {
		fmt.Fprintf(w, "%-9s %s\n", [...]string{"gpu", ""}[min(i, 1)], line)
	}
	fmt.Fprintf(w, "ffmpeg    %s\n", ffmpeg)
	if d.Cache != "" {
		fmt.Fprintf(w, "cache     %s\n", d.Cache)
	}
}

// String is "self-test avx2: 17.1 fps, 98.2 dB to the portable class".
func (t kernelTest) String() string {
	switch {
	case t.Error != "":
		return fmt.Sprintf("self-test %s: FAILED: %s", t.Kernel, t.Error)
	case t.Equal:
		return fmt.Sprintf("self-test %s: %.1f fps, frames equal the portable class's", t.Kernel, t.FPS)
	}
	line := fmt.Sprintf("self-test %s: %.1f fps, %.1f dB to the portable class", t.Kernel, t.FPS, t.PSNR)
	return strings.Join(append([]string{line}, t.Parts...), "; ")
}

// testKernel makes frames and compares them with want; a nil want is the reference itself.
func testKernel(ctx context.Context, kernel string, count int, want []video.Frame) (kernelTest, []video.Frame) {
	t := kernelTest{Kernel: kernel}
	frames, fps, parts, err := testRun(ctx, kernel, count)
	if t.Parts = parts; err != nil {
		t.Error = err.Error()
		return t, nil
	}
	t.FPS = rounded(fps, 10)
	if want == nil {
		t.Equal = true
		return t, frames
	}
	worst := math.Inf(1)
	for i, f := range frames {
		psnr, err := metric.PSNR(f, want[i])
		if err != nil {
			t.Error = err.Error()
			return t, nil
		}
		worst = min(worst, psnr)
	}
	if t.Equal = math.IsInf(worst, 1); !t.Equal {
		t.PSNR = rounded(worst, 10)
	}
	if worst < testPSNR {
		t.Error = fmt.Sprintf("%.1f dB to the portable class, expected at least %d", worst, testPSNR)
	}
	return t, frames
}

// testRun makes frames by a kernel class of the CPU, or on a GPU, cuda:N, which is first examined.
func testRun(ctx context.Context, kernel string, count int) ([]video.Frame, float64, []string, error) {
	var parts []string
	name, flags := "cpu", deviceFlags{Options: cpu.Options{Kernel: kernel}, small: true, progress: func(string) {}}
	if number, ok := strings.CutPrefix(kernel, "cuda:"); ok {
		n, err := strconv.Atoi(number)
		if err == nil {
			parts, err = checkGPU(n, flags.progress)
		}
		if err != nil {
			return nil, 0, parts, err
		}
		name, flags.Kernel = kernel, ""
	}
	dev, err := openDevice(name, flags)
	if err != nil {
		return nil, 0, parts, err
	}
	defer dev.Device.Close()
	engine, err := model.OpenTinyWorld(dev.Device)
	if err != nil {
		return nil, 0, parts, err
	}
	defer engine.Close()
	length := count + 1
	g := generateCommand{Frames: &length, Seed: 7, Start: "sim", Actions: "auto"}
	plan, err := g.makePlan(nil, models[model.TinyWorld])
	if err != nil {
		return nil, 0, parts, err
	}
	plan.setStart(engine.Width, engine.Height)
	session, err := engine.NewSession(ctx, plan.request)
	if err != nil {
		return nil, 0, parts, err
	}
	defer session.Close()
	frames, fps, err := roll(ctx, session, plan)
	return frames, fps, parts, err
}

// roll generates the frames of a plan after its start.
func roll(ctx context.Context, session *rollout.Session, p *plan) (frames []video.Frame, fps float64, err error) {
	began := time.Now()
	for n := len(p.request.Start); n < p.frames; n++ {
		made, err := session.Next(ctx, p.action(n))
		if err != nil {
			return nil, 0, err
		}
		frames = append(frames, made...)
	}
	return frames, float64(len(frames)) / time.Since(began).Seconds(), nil
}

// cpuName reads the processor's name where the system tells it in a file.
func cpuName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
