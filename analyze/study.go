package analyze

import (
	"context"
	"fmt"

	"longtake/compare"
)

// Study is what was found. Means are over heads and queries, and over the examined chunks where there are several.
type Study struct {
	Setup compare.Setup `json:"setup"`
	// At are the examined latent frames, Pass the denoising pass of their chunks, Layers the blocks.
	At     []int `json:"at"`
	Pass   int   `json:"pass"`
	Layers []int `json:"layers"`
	// Words are the prompt's tokens.
	Words  []string      `json:"words,omitempty"`
	Recall []LayerRecall `json:"recall"`
	// Similarity has one entry for each layer and space.
	Similarity []Similarity `json:"similarity"`
	Prompt     []PromptUse  `json:"prompt"`
	Matches    []Match      `json:"matches"`
	Merging    []Merging    `json:"merging"`
	Trials     []TrialRow   `json:"trials,omitempty"`
	Matchers   []MatcherRow `json:"matchers,omitempty"`

	clip *clip
	maps []promptMap
}

// LayerRecall is the share of attention on past keys (latent frames before the chunk) that the strongest keys of each query hold.
type LayerRecall struct {
	Layer int `json:"layer"`
	// Mass[i] is what the top share Density[i] of past keys holds.
	Density []float64 `json:"density"`
	Mass    []float64 `json:"mass"`
	// Own is the chunk's share of all attention; the others are shares of that on past keys.
	Own      float64 `json:"own"`
	Previous float64 `json:"previous_frame"`
	Last8    float64 `json:"last_8"`
	Older32  float64 `json:"older_than_32"`
}

// Similarity is how close the clean keys of a new latent frame are to earlier ones, head by head, as cosines.
type Similarity struct {
	Layer int    `json:"layer"`
	Space string `json:"space"`
	// Same compares with the same place of a frame Lags[i] before, Best with the nearest key of that frame.
	Lags []int     `json:"lags"`
	Same []float64 `json:"same"`
	Best []float64 `json:"best"`
	// BestAll is the nearest key of all earlier frames, Above90 the share of keys for which it is above 0.9, Pair the mean
	// of all pairs.
	BestAll float64 `json:"best_of_all"`
	Above90 float64 `json:"best_above_0.9"`
	Pair    float64 `json:"any_pair"`
}

// Run makes the video and measures. Errors of the request wrap rollout.ErrRequest; a cancelled context ends it with ctx's error.
func Run(ctx context.Context, o Options) (*Study, error) {
	if err := o.prepare(); err != nil {
		return nil, err
	}
	c, err := record(ctx, &o)
	if err != nil {
		return nil, err
	}
	s := &Study{At: o.At, Pass: o.Pass, Layers: o.Layers, clip: c}
	s.Setup = compare.Setup{Frames: o.Frames, Given: c.first, ChunkFrames: o.Engine.Network.ChunkFrames}
	steps := []struct {
		name string
		do   func()
	}{
		{"recall", func() { s.Recall = c.recall(o.Layers) }},
		{"similarity", func() { s.Similarity = c.similarity(o.Layers) }},
		{"prompt", func() { s.prompt(o.Layers, o.Words) }},
		{"correspondence", func() { s.Matches = c.matches(o.Layers) }},
		{"merging", func() { s.Merging = c.merging(o.Layers, o.Thresholds) }},
		{"trials", func() { s.Trials = c.trials(o.Trials) }},
		{"matchers", func() { s.Matchers = c.matchers(o.Layers, o.Matchers) }},
	}
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		step.do()
		o.Progress(step.name, i+1, len(steps))
	}
	return s, nil
}

// record runs the session.
func record(ctx context.Context, o *Options) (*clip, error) {
	r := newRecorder(o)
	request := o.Request
	request.Cache, request.Self, request.Cross = r, eyes{r: r}, eyes{r: r}
	session, err := o.Engine.NewSession(ctx, request)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	r.clip.frames = append(r.clip.frames, request.Start...)
	for done := session.Stats().Frames; done < o.Frames; done = session.Stats().Frames {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		end := min(done+o.Engine.Network.ChunkFrames, len(o.Actions))
		frames, err := session.Next(ctx, o.Actions[min(done, end):end]...)
		if err != nil {
			return nil, err
		}
		r.clip.frames = append(r.clip.frames, frames...)
		o.Progress("video", min(session.Stats().Frames, o.Frames), o.Frames)
	}
	if len(r.clip.moments) == 0 {
		return nil, fmt.Errorf("none of the latent frames %v was examined", o.At)
	}
	return r.clip, nil
}
