package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"time"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/rollout"
	"longtake/text"
	"longtake/video"
	"longtake/video/file"
)

// generateCommand holds the flags of "generate".
type generateCommand struct {
	Output string `short:"o" default:"video.webm" aliases:"output-path,save-file" placeholder:"PATH" help:"Video to write, format by extension: ${formats}. Default ${default}."`
	Frames *int   `short:"n" aliases:"num-frames,frame-num" placeholder:"N" help:"Frames of the video, the start frame included; models on Wan-2.1 make 1+4n. Default: 240, and 81 of models on Wan-2.1."`
	Latent *int   `name:"latent-frames" aliases:"num-output-frames" placeholder:"N" help:"Length in latent frames instead: 21 are 81 frames of models on Wan-2.1."`
	Seed   uint64 `default:"0" aliases:"base-seed" help:"Seed of the noise and, in its lower 32 bits, of the simulator. Default ${default}."`
	Start  string `aliases:"image,video-path" placeholder:"WHAT" help:"First frame: sim (the simulator's view in the world of --seed), sim:SEED, none (from the text alone), an image file (cut to the model's shape and resized), or with models on Wan-2.1 a folder of images, which are the first frames. Default: sim, none of models without a simulator."`

	Prompt     *string `placeholder:"TEXT" help:"Description of the video; @FILE reads it. Default: the simulator's own for the seed."`
	PromptFile string  ` aliases:"data-path,prompt-path" placeholder:"FILE" help:"A video for each line: .txt, a prompt a line; .jsonl, {\"prompt\": \"...\"} or {\"prompts\": [\"...\", ...]}, whose prompts take turns. Outputs are numbered: a.mp4 becomes a-0001.mp4."`
	Config     string  `aliases:"config-path" placeholder:"FILE" help:"Settings of a .yaml file as Self-Forcing and LongLive have them; flags come first."`
	Loop       string  `default:"model" help:"How chunks are made: model (its own way), blockwise, overlapped (a chunk's clean pass inside the next one's first step), ahead (decoding beside the next chunk, which begins before its turn), rolling. Default ${default}."`
	Refresh    string  `default:"model" help:"What a new prompt does to the history: model (its own way), none, chunks, window. Default ${default}."`
	Noise      string  `default:"native" help:"Noise: native, or torch-cpu (the stream of torch.randn after torch.manual_seed, drawn as the model's Python program draws it). Default ${default}."`
	Actions    string  `default:"auto" aliases:"actions-path" placeholder:"SCRIPT" help:"What the walker does, such as 'w20 d8 (w10 q5)x4': w forward, s back, a/d turn left/right, q/e forward and left/right, z/c a step to the left/right (not every model knows it), . nothing. A file, @FILE, or auto (the simulator's walker). A script shorter than the video is repeated, an empty one stands still."`
	Steps      int     `aliases:"num-inference-steps,sample-steps" placeholder:"N" help:"Denoising steps a frame. Default: the model's own."`

	modelFlags
	policyFlags

	Scale int    `placeholder:"N" help:"Enlarge every pixel to NxN. Default: what makes the shorter side at least 256."`
	FPS   string `name:"fps" placeholder:"RATE" help:"Frame rate of the file, such as 15 or 30000/1001. Default: the model's own."`

	Device    string `default:"auto" help:"Device: ${devices}."`
	Precision string `default:"bf16" placeholder:"TYPE" help:"How a GPU multiplies: bf16 (the embedded model in float32), or fp8 (e4m3; half the memory of the network's blocks and faster, less exact). Default: ${default}."`
	CPUKernel string `name:"cpu-kernel" placeholder:"CLASS" help:"Kernel class of the CPU; this machine has ${kernels}. Default: the first."`
	Threads   int    `placeholder:"N" help:"CPU threads. Default: all cores. The video does not depend on it."`

	Preview bool `help:"Show the frames in the terminal as they come."`
	JSON    bool `name:"json" help:"Print the record of the run as one JSON object on standard output."`
	Quiet   bool `short:"q" help:"Print errors only."`

	OutputFolder    string `hidden:"" help:"The same as -o FOLDER/video.webm."`
	NumSamples      int    `hidden:"" default:"1" help:"Accepted from other tools; 1 is what there is."`
	PrintPeakMemory bool   `hidden:"" help:"Accepted from other tools; it always is."`
}

// Help is shown below the flags' summary.
func (*generateCommand) Help() string {
	return `Examples:

  longtake generate --frames 240 --seed 7 -o walk.webm
  longtake generate --actions 'w20 d8 (w10 q5)x4' --seed 3 -o turns.gif
  longtake generate --start photo.jpg --scale 4 -o dream.mp4
  longtake generate --start none --prompt 'you start in the south . the sky is night .' -o night.y4m
  longtake generate --cache window --window 16 --anchor 2 --json -o a.webm
  longtake generate --model self-forcing --prompt 'a cat walks along a beach' -o cat.mp4
  longtake generate --model ~/Self-Forcing --vae tiny --frames 321 --preset fast --prompt @cat.txt -o cat.webm

Beside the video lies a record of how it was made (walk.webm.json). The same seed and kernel class give the same frames, whatever the number of threads. Nothing is left behind after an error or Ctrl-C. Flags may be written with "_" for "-".`
}

// settings are the checked flags that need no model.
type settings struct {
	fps     video.Rate // zero for the model's own
	loop    rollout.Loop
	refresh rollout.Refresh
	loading time.Duration
	model   catalogued
}

// check finds what is wrong with the flags before anything is loaded.
func (g *generateCommand) check() (s settings, err error) {
	for flag, n := range map[string]*int{"frames": g.Frames, "latent-frames": g.Latent} {
		if n != nil && (*n < 1 || *n > maxFrames) {
			return s, usagef("--%s %d: must be between 1 and %d", flag, *n, maxFrames)
		}
	}
	if g.Frames != nil && g.Latent != nil {
		return s, usagef("--frames and --latent-frames exclude each other")
	}
	if s.loop, err = rollout.ParseLoop(g.Loop); err != nil {
		return s, err
	}
	if s.refresh, err = rollout.ParseRefresh(g.Refresh); err != nil {
		return s, err
	}
	if g.Noise != "native" && g.Noise != "torch-cpu" {
		return s, usagef("--noise %q: known are native, torch-cpu", g.Noise)
	}
	if g.OutputFolder != "" && g.Output == "video.webm" {
		g.Output = filepath.Join(g.OutputFolder, g.Output)
	}
	if g.NumSamples != 1 {
		return s, usagef("--num-samples %d: a prompt makes one video; a file with a line for each (--prompt-file), or other seeds, make several", g.NumSamples)
	}
	if g.Scale < 0 {
		return s, usagef("--scale %d: must not be negative", g.Scale)
	}
	if g.Steps < 0 {
		return s, usagef("--steps %d: must not be negative", g.Steps)
	}
	if g.Output == "-" && g.JSON {
		return s, usagef("--json and a video on standard output exclude each other")
	}
	if err := file.Supported(g.Output); err != nil {
		return s, usageError{err}
	}
	if g.FPS != "" {
		if s.fps, err = video.ParseRate(g.FPS); err != nil {
			return s, usagef("--fps: %w", err)
		}
	}
	var config map[string]configValue
	if g.Config != "" {
		if config, err = g.readConfig(); err != nil {
			return s, err
		}
	}
	if s.model, err = modelNamed(&g.modelFlags); err != nil {
		return s, err
	}
	if s.model.rolls && s.loop == rollout.ModelLoop || s.loop == rollout.RollingWindow {
		return s, nil
	}
	return s, g.window(config)
}

// Run makes the video.
func (g *generateCommand) Run(ctx context.Context, out *streams) error {
	set, err := g.check()
	if err != nil {
		return err
	}
	if _, ok := terminal(out.err); g.Preview && !ok {
		return usagef("--preview draws on standard error, which is not a terminal")
	}
	plans, err := g.makePlans(out.in, set.model)
	if err != nil {
		return err
	}
	g.Encode = plans[0].begin.kind == startImage
	for _, p := range plans {
		g.Prompts = append(g.Prompts, p.script...)
	}
	if !g.Quiet {
		g.Note = func(line string) { fmt.Fprintln(out.err, line) }
	}
	dev, err := openDevice(g.Device, deviceFlags{
		Options: cpu.Options{Kernel: g.CPUKernel, Threads: g.Threads}, precision: g.Precision, small: set.model.small,
		progress: func(line string) { fmt.Fprintln(out.err, line) },
	})
	if err != nil {
		return err
	}
	defer dev.Device.Close()
	began := time.Now()
	engine, err := set.model.open(dev.Device)
	if err != nil {
		return fmt.Errorf("model %s: %w", g.Model, err)
	}
	defer engine.Close()
	set.loading = time.Since(began)
	if set.loop != rollout.ModelLoop {
		engine.Loop = set.loop // nobody else has the engine yet
	}
	if set.fps == (video.Rate{}) {
		if set.fps, err = video.RateOf(engine.FPS); err != nil {
			return err
		}
	}
	for _, p := range plans {
		if err := g.make(ctx, out, dev, engine, set, p); err != nil {
			return err
		}
	}
	return nil
}

// make makes one video.
func (g *generateCommand) make(ctx context.Context, out *streams, dev processor, engine *rollout.Engine, set settings, plan *plan) error {
	plan.setStart(engine.Width, engine.Height)
	kept, err := g.resolve(engine)
	if err != nil {
		return err
	}
	if engine.FromImage() && plan.begin.kind != startImage {
		return usagef("model %s makes videos from an image: give one by --image FILE", engine.Name)
	}
	plan.fitStart(engine, kept.rolls(engine))
	plan.request = kept.Request(plan.request)
	plan.setRefresh(set.refresh)
	if !g.Quiet {
		plan.noteRefresh(out.err, engine, kept, set.refresh)
	}
	if err := plan.setLength(engine, kept, g.Noise); err != nil {
		return err
	}
	if kept.sized != nil {
		plan.request.Cache = kept.sized(engine.LatentFrames(len(plan.given)) + plan.chunks*engine.Network.ChunkFrames)
	}
	r, err := newRecord(g, dev, engine, plan, kept)
	if err != nil {
		return err
	}
	r.setModel(set)
	if err := fits(dev.Device, r.Memory); err != nil {
		return err
	}
	options := video.Options{Width: engine.Width, Height: engine.Height, FPS: set.fps, Scale: g.Scale}
	if options.Scale == 0 {
		options.Scale = max(1, (255+min(options.Width, options.Height))/min(options.Width, options.Height))
	}
	r.setVideo(options)
	shot := &shot{flags: g, settings: set, plan: plan, record: r, out: out, dev: dev}
	return shot.run(ctx, engine, options)
}

// fits refuses what would run out of memory half-way.
func fits(dev compute.Device, m memoryRecord) error {
	if free := dev.Memory().Free; free > 0 && m.Session > free {
		return usagef("the session needs %s and %s is free: use a smaller --window, --cache window, or fewer --frames",
			bytesText(m.Session), bytesText(free))
	}
	return nil
}

// shot is one run of generate.
type shot struct {
	flags *generateCommand
	settings
	plan   *plan
	record *record
	out    *streams
	dev    processor

	hash     hash.Hash // over the raw frames
	encoding time.Duration
	times    stages
	writer   video.AtomicWriter
	progress progress
}

func (s *shot) run(ctx context.Context, engine *rollout.Engine, o video.Options) (err error) {
	if s.writer, err = createOutput(s.plan.output, o, s.out.out); err != nil {
		return usageError{err}
	}
	defer s.writer.Abort()
	if !s.flags.Quiet {
		s.record.announce(s.out.err)
	}
	session, err := engine.Open(ctx, s.plan.request)
	if err != nil {
		return err
	}
	defer session.Close()
	s.record.setUnknown(session.Unknown())
	if !s.flags.Quiet {
		noteUnknown(s.out.err, session.Unknown())
	}
	s.record.Timings.StartUp = seconds(time.Since(s.out.began))
	s.hash = sha256.New()
	s.progress = newProgress(s.flags, s.out, s.plan.frames)
	defer s.progress.end()
	d := startDelivery(ctx, s.write)
	if err := d.finish(s.film(d, session)); err != nil {
		return err
	}
	s.progress.end()
	return s.publish(engine, session)
}

// shownWords is how many unknown words are listed on standard error; the record has them all.
const shownWords = 10

// noteUnknown lists the words of the prompt that are ignored.
func noteUnknown(w io.Writer, words []text.Unknown) {
	for _, u := range words[:min(len(words), shownWords)] {
		fmt.Fprintf(w, "longtake: note: the model does not know the word %v\n", u)
	}
	if more := len(words) - shownWords; more > 0 {
		fmt.Fprintf(w, "longtake: note: and %d more words that it does not know\n", more)
	}
}

// stages sums times over chunks.
type stages rollout.Times

func (s *stages) add(t rollout.Times) {
	s.Denoise += t.Denoise
	s.Commit += t.Commit
	s.Decode += t.Decode
}

// film makes the frames.
func (s *shot) film(d *delivery, session rollout.Timeline) error {
	n := 0
	for _, f := range s.plan.given {
		if n == s.plan.frames {
			break
		}
		if err := d.send(f); err != nil {
			return err
		}
		n++
	}
	began, t := time.Now(), &s.record.Timings
	prompt := s.plan.request.Prompt
	for i, first := 0, true; n < s.plan.frames; i, first = i+1, false {
		if next := s.plan.script.at(i, s.plan.chunks); next != prompt {
			if err := session.SetPrompt(d.ctx, next); err != nil {
				return err
			}
			prompt = next
			s.record.Request.Prompts = append(s.record.Request.Prompts, promptRecord{n, next})
		}
		frames, err := session.Next(d.ctx, s.plan.action(n))
		if err != nil {
			return err
		}
		if len(frames) == 0 {
			return fmt.Errorf("the video ended at frame %d of %d", n, s.plan.frames)
		}
		if first {
			t.FirstFrame = seconds(time.Since(s.out.began))
		}
		s.times.add(session.Times())
		for _, f := range frames[:min(len(frames), s.plan.frames-n)] {
			if err := d.send(f); err != nil {
				return err
			}
			n++
		}
		s.record.Memory.Cache = session.Stats().Bytes
		s.progress.frame(n, session.Stats().Bytes)
	}
	if made := n - len(s.plan.given); made > 0 {
		t.MeanFPS = rounded(float64(made)/time.Since(began).Seconds(), 1e3)
	}
	return nil
}

// write is the far end of the delivery.
func (s *shot) write(ctx context.Context, f video.Frame) error {
	began := time.Now()
	s.hash.Write(f.Pix)
	err := s.writer.WriteFrame(ctx, f)
	s.encoding += time.Since(began)
	if err == nil {
		s.progress.show(ctx, f)
	}
	return err
}

// publish gives the finished video and its record their names. The record is on the disk before the video takes its place, so
// that what can fail fails first.
func (s *shot) publish(engine *rollout.Engine, session rollout.Timeline) error {
	t := &s.record.Timings
	t.Denoise, t.Commit, t.Decode = seconds(s.times.Denoise), seconds(s.times.Commit), seconds(s.times.Decode)
	t.Encode, t.Total = seconds(s.encoding), seconds(time.Since(s.out.began))
	s.record.Model.Hash = engine.Hash()
	s.record.FramesHash = fmt.Sprintf("%x", s.hash.Sum(nil))
	s.record.Memory.Session = session.Bytes()
	s.record.Memory.Peak = s.dev.Device.Memory().Peak
	card, err := prepareSidecar(s.plan.record, s.record)
	if err != nil {
		return err
	}
	defer card.abort()
	if err := s.writer.Close(); err != nil {
		return err
	}
	if err := card.commit(); err != nil {
		return err
	}
	if !s.flags.Quiet {
		s.record.summarize(s.out.err)
	}
	if s.flags.JSON {
		return s.record.print(s.out.out)
	}
	return nil
}
