package main

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"longtake/compute"
	"longtake/compute/cpu"
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
		"selves":   listed(selves),
		"crosses":  listed(crosses),
		"presets":  presetsText(),
		"formats":  file.Known,
		"served":   served,
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
