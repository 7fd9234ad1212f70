package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"longtake/compute/cpu"
	"longtake/text"
	"longtake/video"
	"longtake/video/metric"
	"longtake/world"
)

// goldenFile holds frames_sha256 of the golden runs by "GOARCH/kernel class" and name: elsewhere plain Go may fuse multiply-adds.
const goldenFile = "testdata/golden/frames.json"

// goldenRuns are few forwards, since plain Go makes about five a second. The second walks to and fro and turns back, with so few
// latest frames that memory by pose reads others.
var goldenRuns = []struct {
	name string
	args []string
}{
	{"", []string{"--frames", "3", "--steps", "2"}},
	{"/look-back", []string{"--frames", "24", "--steps", "1", "--cache", "pose", "--window", "2", "--actions", "w2 s2 d2 a4 d2 w s"}},
}

func TestEveryKernelClassMakesItsGoldenFramesOnAnyNumberOfThreads(t *testing.T) {
	golden := readGolden(t)
	kernels := cpu.Kernels()
	portable := kernels[len(kernels)-1]
	for i, run := range goldenRuns {
		var want []video.Frame
		for _, kernel := range slices.Backward(kernels) {
			if raceEnabled && kernel == portable && len(kernels) > 1 {
				continue
			}
			r, frames := generateGolden(t, run.args, kernel, "2")
			if want == nil {
				want = frames
			}
			for i, f := range frames {
				if psnr, err := metric.PSNR(f, want[i]); err != nil || psnr < 40 {
					t.Errorf("%s: frame %d is %.1f dB from the portable class (%v)", kernel, i, psnr, err)
				}
			}
			key := runtime.GOARCH + "/" + kernel + run.name
			if known, ok := golden[key]; ok && known != r.FramesHash && !*update {
				t.Errorf("%s: frames %s, golden %s (run with -update if that is meant)", key, r.FramesHash, known)
			}
			golden[key] = r.FramesHash
			if kernel == portable && i > 0 {
				continue // slow, and the first run has shown it
			}
			if one, _ := generateGolden(t, run.args, kernel, "1"); one.FramesHash != r.FramesHash {
				t.Errorf("%s: one thread makes %s, two make %s", key, one.FramesHash, r.FramesHash)
			}
		}
	}
	if *update {
		writeGolden(t, golden)
	}
	args := append(slices.Clone(goldenRuns[1].args), "--cache", "window")
	if r, _ := generateGolden(t, args, kernels[0], "2"); r.FramesHash == golden[runtime.GOARCH+"/"+kernels[0]+goldenRuns[1].name] {
		t.Error("memory by pose and a window make the same frames: the run does not look back")
	}
}

// generateGolden runs generate and checks that its record tells the truth.
func generateGolden(t *testing.T, args []string, kernel, threads string) (record, []video.Frame) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "frames")
	all := append([]string{"generate", "--seed", "7", "--scale", "1", "--json", "--quiet", "--cpu-kernel", kernel, "--threads", threads, "-o", dir}, args...)
	r := parse[record](t, succeed(t, all...).out)
	frames, hash := readFrames(t, dir), sha256.New()
	for _, f := range frames {
		hash.Write(f.Pix)
	}
	if got := fmt.Sprintf("%x", hash.Sum(nil)); got != r.FramesHash {
		t.Errorf("%s: the record says %s, the pictures have %s", kernel, r.FramesHash, got)
	}
	if r.Device.Kernel != kernel || !strings.Contains(r.Device.Description, threads+" thread") {
		t.Errorf("ran on %+v, want %s", r.Device, kernel)
	}
	return r, frames
}

func readGolden(t *testing.T) map[string]string {
	golden := map[string]string{}
	b, err := os.ReadFile(goldenFile)
	if err != nil && *update {
		return golden
	}
	if err == nil {
		err = json.Unmarshal(b, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
	return golden
}

func writeGolden(t *testing.T, golden map[string]string) {
	if err := os.MkdirAll(filepath.Dir(goldenFile), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile, jsonText(golden), 0o666); err != nil {
		t.Fatal(err)
	}
}

// readFrames reads a folder of PNG.
func readFrames(t *testing.T, dir string) (frames []video.Frame) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.png"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no frames in %s (%v)", dir, err)
	}
	for _, name := range names { // sorted by Glob
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := png.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, video.FromImage(m))
	}
	return frames
}

func TestTheRecordTellsHowTheVideoWasMade(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "walk.webm")
	args := []string{"generate", "--num_frames", "2", "--num_inference_steps=1", "--base_seed", "5", "--actions", "d w3", "--window", "4", "--sink_size", "1", "--json", "--output_path", out}
	r := succeed(t, args...)
	sidecar, err := os.ReadFile(out + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if string(sidecar) != r.out {
		t.Errorf("the sidecar and --json differ:\n%s\n%s", sidecar, r.out)
	}
	got := parse[record](t, r.out)
	q := got.Request
	if q.Seed != 5 || q.Frames != 2 || q.Steps != 1 || q.Policy != "window" || q.Window != 4 || q.Anchor != 1 || q.Actions != "d" {
		t.Errorf("request %+v", q)
	}
	if q.Start.From != "sim:5" || q.Start.Frames != 1 || !strings.HasPrefix(q.Prompt, "you start in the") {
		t.Errorf("request %+v", q)
	}
	if got.Model.Name != "tinyworld" || len(got.Model.Hash) != 64 || got.Model.Parameters != 7669696 || len(got.FramesHash) != 64 {
		t.Errorf("record %+v", got)
	}
	if got.Video != (videoRecord{out, 64, 64, 4, 15}) || got.Host.OS != runtime.GOOS || got.Tool.Go != runtime.Version() {
		t.Errorf("record %+v", got)
	}
	m, d := got.Timings, got.Memory
	if m.StartUp <= 0 || m.FirstFrame <= m.StartUp || m.Total < m.FirstFrame || m.MeanFPS <= 0 || m.Denoise <= 0 || m.Commit <= 0 || m.Encode <= 0 {
		t.Errorf("timings %+v", m)
	}
	if d.Weights < 15<<20 || d.Session <= d.Cache || d.Cache <= 0 {
		t.Errorf("memory %+v", d)
	}
	for _, word := range []string{"tinyworld, 7.7 M parameters", "seed 5", "cache window 4 + 1 anchor", "MiB weights", "walk.webm: 2 frames, 256x256 at 15 fps"} {
		if !strings.Contains(r.err, word) {
			t.Errorf("said %q, want %q in it", r.err, word)
		}
	}

	// Another video of the same name replaces both.
	succeed(t, "generate", "--frames", "1", "--seed", "6", "--quiet", "-o", out)
	if sidecar, err = os.ReadFile(out + ".json"); err != nil {
		t.Fatal(err)
	}
	if again := parse[record](t, string(sidecar)); again.Request.Seed != 6 || again.FramesHash == got.FramesHash {
		t.Errorf("the sidecar is that of the older video: %s", sidecar)
	}
	if left := files(t, dir); !slices.Equal(left, []string{"walk.webm", "walk.webm.json"}) {
		t.Errorf("files %q", left)
	}
}

func TestEveryFormatIsWritten(t *testing.T) {
	dir := t.TempDir()
	for name, magic := range map[string]string{"a.webm": "\x1a\x45\xdf\xa3", "a.gif": "GIF89a", "a.y4m": "YUV4MPEG2", "a.mp4": "", "shots/": "", "s_%03d.png": ""} {
		if _, err := exec.LookPath("ffmpeg"); err != nil && name == "a.mp4" {
			r := longtake(t, "generate", "--frames", "1", "-o", filepath.Join(dir, name))
			if r.code != exitUsage || !strings.Contains(r.err, ".webm") {
				t.Errorf("%s without ffmpeg: exit code %d, %s", name, r.code, r.err)
			}
			continue
		}
		out := filepath.Join(dir, strings.ReplaceAll(name, "s_", "shots_too/s_"))
		if strings.HasSuffix(name, "/") {
			out += "/"
		}
		if r := succeed(t, "generate", "--frames", "1", "--quiet", "-o", out); r.out+r.err != "" {
			t.Errorf("%s: --quiet said %q %q", name, r.out, r.err)
		}
		if b, err := os.ReadFile(out); magic != "" && (err != nil || !strings.HasPrefix(string(b), magic)) {
			t.Errorf("%s does not begin with %q (%v)", name, magic, err)
		}
	}
	for _, name := range []string{"a.webm.json", "shots.json", "shots/frame_000001.png", "shots_too.json", "shots_too/s_001.png"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if r := succeed(t, "generate", "--frames", "1", "-q", "-o", "-"); !strings.HasPrefix(r.out, "YUV4MPEG2") {
		t.Error("- does not write y4m to standard output")
	}
}

func TestUnknownWordsAreListedAndTheVideoIsMade(t *testing.T) {
	out := filepath.Join(t.TempDir(), "a.gif")
	r := succeed(t, "generate", "--frames", "1", "--start", "none", "--steps", "1", "--prompt", "the sky is bluu . dragons", "--json", "-o", out)
	for _, word := range []string{`"bluu" (nearest: blue`, `"dragons" (nearest: `} {
		if !strings.Contains(r.err, word) {
			t.Errorf("said %q, want %q in it", r.err, word)
		}
	}
	q := parse[record](t, r.out).Request
	if len(q.Unknown) != 2 || q.Unknown[0].Word != "bluu" || len(q.Unknown[0].Nearest) == 0 || q.Start.Frames != 0 {
		t.Errorf("record %+v", q)
	}
}

func TestALongListOfUnknownWordsIsCut(t *testing.T) {
	var b strings.Builder
	noteUnknown(&b, make([]text.Unknown, 25))
	if n := strings.Count(b.String(), "\n"); n != 11 || !strings.Contains(b.String(), "and 15 more") {
		t.Errorf("%d lines: %s", n, b.String())
	}
}

func TestActionsComeFromScriptsFilesAndStandardInput(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "w9.txt")
	if err := os.WriteFile(file, []byte("a3 # three turns\nw"), 0o666); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{"w2 d": "w2 d w2 d w", "@" + file: "a3 w a3", file: "a3 w a3", "@-": "w2 d w2 d w", "": ".7", "s100": "s7"} {
		g := generateCommand{Frames: new(8), Actions: value}
		p, err := g.makePlan(strings.NewReader("w2 d"), models["tinyworld"])
		if err != nil {
			t.Errorf("%q: %v", value, err)
			continue
		}
		if got := world.FormatActions(p.actions); got != want {
			t.Errorf("%q became %q, want %q", value, got, want)
		}
	}
	a, err := (&generateCommand{Frames: new(90), Actions: "auto", Seed: 3}).makePlan(nil, models["tinyworld"])
	if err != nil {
		t.Fatal(err)
	}
	b, err := (&generateCommand{Frames: new(90), Actions: "auto", Seed: 9, Start: "sim:3"}).makePlan(nil, models["tinyworld"])
	if err != nil || !slices.Equal(a.actions, b.actions) || len(a.actions) != 89 || a.request.Prompt != b.request.Prompt {
		t.Errorf("the walker of a world's seed differs: %v", err)
	}
}

func TestStartImagesAreCutToTheModelsShape(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 300, 100))
	for y := range 100 {
		for x := range 300 {
			c := color.RGBA{200, 0, 0, 255}
			if x >= 100 && x < 200 {
				c = color.RGBA{0, 180, 30, 255}
			}
			m.SetRGBA(x, y, c)
		}
	}
	path := filepath.Join(t.TempDir(), "in.png")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(f, m); err != nil {
		t.Fatal(err)
	}
	f.Close()
	out := filepath.Join(t.TempDir(), "frames")
	r := parse[record](t, succeed(t, "generate", "--frames", "1", "--image", path, "--scale", "1", "--json", "-o", out).out)
	if r.Request.Start.From != path || len(r.Request.Start.Image) != 64 || r.Request.Start.Frames != 1 {
		t.Errorf("record %+v", r.Request.Start)
	}
	frame := readFrames(t, out)[0]
	for i := 0; i < len(frame.Pix); i += 3 {
		if p := frame.Pix[i : i+3]; p[0] > 2 || p[1] < 178 || p[2] < 28 {
			t.Fatalf("pixel %d is %v: not from the middle of the image", i/3, p)
		}
	}
	for _, c := range []struct{ in, want image.Rectangle }{
		{image.Rect(5, 5, 105, 205), image.Rect(5, 55, 105, 155)},
		{image.Rect(0, 0, 1, 1000), image.Rect(0, 499, 1, 500)},
		{image.Rect(0, 0, 64, 64), image.Rect(0, 0, 64, 64)},
	} {
		if got := centre(c.in, 64, 64); got != c.want {
			t.Errorf("centre of %v is %v, want %v", c.in, got, c.want)
		}
	}
}

func TestAFullDiskIsAnErrorAndLeavesNothing(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full: runs on Linux")
	}
	dir := t.TempDir()
	for _, name := range []string{"a.y4m", "a.gif"} {
		out := filepath.Join(dir, name)
		if err := os.Symlink("/dev/full", out); err != nil {
			t.Fatal(err)
		}
		r := longtake(t, "generate", "--frames", "2", "--steps", "1", "-o", out)
		if r.code != exitFailed || !strings.Contains(r.err, "longtake: write "+out+": no space left on device") {
			t.Errorf("%s: exit code %d, %q", name, r.code, r.err)
		}
	}
	if left := files(t, dir); !slices.Equal(left, []string{"a.gif", "a.y4m"}) {
		t.Errorf("files %q", left)
	}
}

func TestAnInterruptedProcessLeavesNothing(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs signals of Unix: runs on Linux and macOS")
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "generate", "--frames", "5000", "-o", filepath.Join(dir, "a.webm"))
		cmd.Env = append(os.Environ(), asProgram+"=1")
		var errs strings.Builder
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); len(files(t, dir)) == 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no temporary file appeared")
			}
		}
		time.Sleep(100 * time.Millisecond)
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(errs.String(), "longtake: interrupted") {
			t.Errorf("%v: exit code %d, %q", signal, code, errs.String())
		}
		if left := files(t, dir); len(left) > 0 {
			t.Errorf("%v: files left: %q", signal, left)
		}
	}
}

func TestActionsThatTheModelLacksAreRefused(t *testing.T) {
	p, err := (&generateCommand{Frames: new(4), Actions: "w z", Seed: 3}).makePlan(nil, models["tinyworld"])
	if err != nil {
		t.Fatal(err)
	}
	if err := p.known(7); err == nil || !strings.Contains(err.Error(), "--actions: the model does not know strafe_left") {
		t.Errorf("of seven actions: %v", err)
	}
	if err := p.known(9); err != nil {
		t.Errorf("of nine actions: %v", err)
	}
}
