package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"longtake/compute"
	"longtake/dit"
	"longtake/kvcache"
	"longtake/rollout"
)

// forwardCommand holds the flags of "forward".
type forwardCommand struct {
	machineFlags `embed:""`
	Cached       []int  `default:"3,21" placeholder:"N,..." help:"Latent frames that the forward sees, its own included. Default ${default}."`
	Runs         int    `default:"10" help:"Forwards that are timed, after two that are not. Default ${default}."`
	Prompt       string `default:"a cat walks along a beach" help:"Prompt, whose length is a part of the work."`
	Save         string `placeholder:"FILE" help:"Write the predictions, float32, one length after the other."`
	Against      string `placeholder:"FILE" help:"Also print how far the predictions are from those of a file that --save wrote, say with another --precision: the size of the difference over the size of them."`
}

// Help is shown below the flags' summary.
func (*forwardCommand) Help() string {
	return `One forward of the network on a chunk, dense, by the length of what it sees, as lines of a Go benchmark; no decoding:

  longtake forward --model self-forcing --vae tiny --cached 3,12,21

What fp8 loses in a forward, over a history of its own products:

  longtake forward --model self-forcing --vae tiny --precision bf16 --save bf16.f32
  longtake forward --model self-forcing --vae tiny --precision fp8 --against bf16.f32`
}

// Run measures.
func (c *forwardCommand) Run(ctx context.Context, out *streams) error {
	if c.Runs < 1 || c.Runs > 100_000 {
		return usagef("--runs %d: must be between 1 and 100000", c.Runs)
	}
	c.Note = func(line string) { fmt.Fprintln(out.err, line) }
	l, err := c.machineFlags.open(out)
	if err != nil {
		return err
	}
	defer l.close()
	if len(l.engine.Turns) > 0 {
		return usagef("forward: for models without actions; bench measures others")
	}
	chunk := l.engine.Network.ChunkFrames
	before, err := readFloats(c.Against)
	if err != nil {
		return err
	}
	var all []float32
	for _, n := range c.Cached {
		if n < chunk || n%chunk != 0 || n > 10_000 {
			return usagef("--cached %d: must be a multiple of the chunk's %d latent frames", n, chunk)
		}
		took, values, err := c.time(ctx, l.engine, n)
		if err != nil {
			return err
		}
		all = append(all, values...)
		ms := float64(took.Microseconds()) / 1e3
		fmt.Fprintf(out.out, "BenchmarkForward/model=%s/cached=%d\t%d\t%d ns/op\t%.2f ms\t%.1f TFLOP/s",
			l.engine.Name, n, c.Runs, took.Nanoseconds(), ms, forwardFLOP(l.engine.Network.Config, n)/took.Seconds()/1e12)
		if c.Against != "" {
			if len(before) < len(values) {
				return usagef("--against %s: holds fewer predictions than %d lengths of this model have", c.Against, len(c.Cached))
			}
			fmt.Fprintf(out.out, "\t%.5f off", apart(values, before))
			before = before[len(values):]
		}
		fmt.Fprintln(out.out)
	}
	if c.Save == "" {
		return nil
	}
	return writeWhole(c.Save, func(w io.Writer) error { return binary.Write(w, binary.LittleEndian, all) })
}

// readFloats reads a file of float32, nothing without a name.
func readFloats(path string) ([]float32, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("--against %s: %w", path, cause(err))
	}
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out, nil
}

// apart is the size of the difference of a and the start of b over the size of that.
func apart(a, b []float32) float64 {
	var d, s float64
	for i, v := range a {
		e, w := float64(v-b[i]), float64(b[i])
		d, s = d+e*e, s+w*w
	}
	return math.Sqrt(d / s)
}

// forwardFLOP counts a chunk's forward: the linear layers and both attentions, prompts of 32 tokens.
func forwardFLOP(c dit.Config, cached int) float64 {
	tokens, keys, d := float64(c.ChunkFrames*c.Tokens()), float64(cached*c.Tokens()), float64(c.Dim)
	return float64(c.Layers) * tokens * (2*d*(6*d+2*float64(c.FFN)) + 4*d*keys + 4*d*32)
}

// time returns the median of the runs and their prediction: a forward whose cache holds cached latent frames, those of the chunk among them.
func (c *forwardCommand) time(ctx context.Context, e *rollout.Engine, cached int) (took time.Duration, values []float32, err error) {
	dq, err := e.Device.NewQueue()
	if err != nil {
		return 0, nil, err
	}
	defer dq.Close()
	arena, err := e.Device.NewArena(0)
	if err != nil {
		return 0, nil, err
	}
	defer arena.Free()
	net := e.Network
	chunk := net.ChunkFrames
	work := net.NewWork(arena, e.Device.Types(), dit.Size{Frames: chunk, Passes: 2, PromptTokens: e.Text.MaxTokens()})
	x, pred := arena.Tensor(compute.F32, chunk*net.Tokens(), net.In), arena.Tensor(compute.F32, chunk*net.Tokens(), net.Out)
	if err := arena.Err(); err != nil {
		return 0, nil, err
	}
	cache, err := kvcache.Window{Recent: cached - chunk}.New(e.Device, dq, e.CacheShape)
	if err != nil {
		return 0, nil, err
	}
	defer cache.Close()
	noisy, clean := make([]float32, chunk), make([]float32, chunk)
	for i := range noisy {
		noisy[i] = 833.3333
	}
	work.Schedule(dq, [][]float32{noisy, clean})
	encoded, padded, _, err := e.Text.Encode(dq, c.Prompt)
	if err != nil {
		return 0, nil, err
	}
	work.Prompt(dq, encoded, padded)
	dq.Noise(x, compute.NoiseKey{Seed: 1})
	span := kvcache.Span{Frames: chunk}
	for ; span.Start+chunk < cached; span.Start += chunk {
		if err := cache.Begin(dq, span); err != nil {
			return 0, nil, err
		}
		work.Predict(dq, compute.Tensor{}, x, dit.Pass{Index: 1, Clean: true, Chunk: span.Start / chunk}, cache)
		cache.End()
	}
	if err := cache.Begin(dq, span); err != nil {
		return 0, nil, err
	}
	forward := func() (time.Duration, error) {
		began := time.Now()
		work.Predict(dq, pred, x, dit.Pass{Chunk: span.Start / chunk}, cache)
		err := dq.Wait()
		return time.Since(began), err
	}
	if took, err = medianTime(ctx, c.Runs, forward); err != nil {
		return 0, nil, err
	}
	values, err = rollout.Download(dq, pred)
	return took, values, err
}

// medianTime runs f twice untimed, then so many times.
func medianTime(ctx context.Context, runs int, f func() (time.Duration, error)) (time.Duration, error) {
	var times []time.Duration
	for i := range runs + 2 {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		t, err := f()
		if err != nil {
			return 0, err
		}
		if i >= 2 {
			times = append(times, t)
		}
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
