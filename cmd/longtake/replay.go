package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"longtake/serve"
	"longtake/video"
	"longtake/video/file"
)

// replayCommand holds the flags of "replay".
type replayCommand struct {
	Log    string `arg:"" help:"Event log of a session, .jsonl."`
	Output string `short:"o" placeholder:"PATH" help:"Also write the frames as a video, format by extension: ${formats}."`
	View   int    `default:"0" help:"View to write: 0, or 1 for the second of a comparison. Default ${default}."`
	Scale  int    `default:"4" help:"Enlarge every pixel of the video to NxN. Default ${default}."`

	Policies string `placeholder:"LIST" help:"Policies by name, as the server had them; so are the flags of a policy. Default: ${served}; of models without poses ${servedplain}."`
	Prompt   string `placeholder:"TEXT" help:"--prompt of the server, if it had one."`
	policyFlags
	JSON         bool `name:"json" help:"Print the result as one JSON object on standard output."`
	machineFlags `embed:""`
}

// maxLogEvents bounds what is read of a log: more than a day of events at 60 a second.
const maxLogEvents = 6_000_000

// replayed is what --json prints.
type replayed struct {
	Log      string `json:"log"`
	Chunks   int    `json:"chunks"`
	Frames   int    `json:"frames"`
	Digests  int    `json:"digests_met"`
	Complete bool   `json:"complete"`
	SHA256   string `json:"frames_sha256"`
	Same     bool   `json:"same"`
}

// Help is shown below the flags' summary.
func (*replayCommand) Help() string {
	return `Makes the frames of a session again from its event log and compares them, hash for hash. The same model, policies and kernel class are needed.`
}

// Run replays a log.
func (c *replayCommand) Run(ctx context.Context, out *streams) (err error) {
	if c.View < 0 || c.View > 1 || c.Scale < 1 || c.Scale > 64 {
		return usagef("--view must be 0 or 1, --scale between 1 and 64")
	}
	in, err := os.Open(c.Log)
	if err != nil {
		return usagef("read %s: %w", c.Log, cause(err))
	}
	defer in.Close()
	events, err := serve.ReadLog(in, maxLogEvents)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Log, err)
	}
	l, err := c.open(out)
	if err != nil {
		return err
	}
	defer l.close()
	m, err := servedModel(l, c.Policies, c.Prompt, c.policyFlags)
	if err != nil {
		return err
	}
	w, err := c.writer(m, out)
	if err != nil {
		return err
	}
	defer w.Abort()
	r, err := serve.Replay(ctx, m, events, func(view int, f video.Frame) error {
		if view != c.View {
			return nil
		}
		return w.WriteFrame(ctx, f)
	})
	var other *serve.DivergedError
	if err != nil && !errors.As(err, &other) {
		return fmt.Errorf("%s: %w", c.Log, err)
	}
	if err == nil {
		if err := w.Close(); err != nil {
			return err
		}
	}
	if c.JSON {
		b, _ := json.MarshalIndent(replayed{c.Log, r.Chunks, r.Frames, r.Digests, r.Complete, r.SHA256, err == nil}, "", "  ") // numbers and text
		fmt.Fprintf(out.out, "%s\n", b)
	} else if err == nil && !c.Quiet {
		tail := ""
		if !r.Complete {
			tail = "; the log has no end, what came after its last line is not known"
		}
		fmt.Fprintf(out.err, "longtake: %d frames in %d chunks are the same, sha256 %.16s, %d digests met%s\n", r.Frames, r.Chunks, r.SHA256, r.Digests, tail)
	}
	return err
}

// writer opens the video, or one that takes frames to nowhere.
func (c *replayCommand) writer(m *serve.Model, out *streams) (video.AtomicWriter, error) {
	if c.Output == "" {
		return nowhere{}, nil
	}
	if err := file.Supported(c.Output); err != nil {
		return nil, usageError{err}
	}
	rate, err := video.RateOf(m.FPS)
	if err != nil {
		return nil, err
	}
	w, err := createOutput(c.Output, video.Options{Width: m.Width, Height: m.Height, FPS: rate, Scale: c.Scale}, out.out)
	if err != nil {
		return nil, usageError{err}
	}
	return w, nil
}

// nowhere is a video that nobody wants.
type nowhere struct{}

func (nowhere) WriteFrame(context.Context, video.Frame) error { return nil }
func (nowhere) Close() error                                  { return nil }
func (nowhere) Abort() error                                  { return nil }
