package main

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model"
	"longtake/rollout"
	"longtake/video"
	"longtake/video/file"
)

// This file is the only place where kinds of things meet their names.

// catalogued is a model that the program knows by name.
type catalogued struct {
	open    func(compute.Device) (*rollout.Engine, error)
	licence string
	about   string
}

// models are the models by name.
var models = map[string]catalogued{
	model.TinyWorld: {model.OpenTinyWorld, "Apache-2.0", "embedded; first-person walks through a maze, steered by 7 actions"},
}

// modelNamed returns the model of a name, or of the path of a weight file.
func modelNamed(name string) (catalogued, error) {
	if strings.HasSuffix(name, ".safetensors") {
		open := func(d compute.Device) (*rollout.Engine, error) {
			e, err := model.OpenWorld(d, name)
			if err != nil && !errors.Is(err, compute.ErrNoMemory) {
				err = usageError{err}
			}
			return e, err
		}
		return catalogued{open, "", "world model from a file"}, nil
	}
	return named("model", name, models)
}

// history is a cache policy and what a record says about it.
type history struct {
	kvcache.Policy
	window, anchor int
	// spent is the policy whose cache is as large as this one's can become; nil if it does not grow.
	spent func(frames int) kvcache.Policy
}

// policies makes a cache policy from the flags --window and --anchor, where they are given, and the model's own policy.
var policies = map[string]func(own kvcache.Policy, window, anchor *int) (history, error){
	"full":   fullPolicy,
	"window": windowPolicy,
}

func fullPolicy(_ kvcache.Policy, window, anchor *int) (history, error) {
	if window != nil || anchor != nil {
		return history{}, usagef("--window and --anchor have no meaning with --cache full, which keeps every frame")
	}
	// Its store doubles when it is spent.
	spent := func(frames int) kvcache.Policy { return kvcache.Window{Recent: 2 * frames} }
	return history{Policy: kvcache.Window{Recent: kvcache.Full}, spent: spent}, nil
}

func windowPolicy(own kvcache.Policy, window, anchor *int) (history, error) {
	w, ok := own.(kvcache.Window)
	if !ok || w.Recent == kvcache.Full {
		w = kvcache.Window{Recent: 32}
	}
	if window != nil {
		w.Recent = *window
	}
	if anchor != nil {
		w.Anchor = *anchor
	}
	if w.Recent < 0 || w.Anchor < 0 || w.Recent > maxFrames || w.Anchor > maxFrames {
		return history{}, usagef("--window %d --anchor %d: both must be between 0 and %d", w.Recent, w.Anchor, maxFrames)
	}
	return history{Policy: w, window: w.Recent, anchor: w.Anchor}, nil
}

// createOutput opens the writer of path's format; "-" is y4m on standard output.
func createOutput(path string, o video.Options, stdout io.Writer) (video.AtomicWriter, error) {
	if path == "-" {
		return video.NewY4MStream(stdout, "standard output", o)
	}
	return file.Create(path, o)
}

// names are the words that help texts list.
func names() map[string]string {
	return map[string]string{
		"devices":  listed(devices) + ", cuda:N",
		"kernels":  strings.Join(cpu.Kernels(), ", "),
		"models":   listed(models),
		"policies": listed(policies),
		"formats":  file.Known,
	}
}

func listed[T any](m map[string]T) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

// named looks a name up, or says which there are.
func named[T any](flag, name string, m map[string]T) (T, error) {
	v, ok := m[name]
	if !ok {
		return v, usagef("--%s %q: known are %s", flag, name, listed(m))
	}
	return v, nil
}
