package main

import (
	"io"
	"maps"
	"slices"
	"strings"

	"longtake/compute/cpu"
	"longtake/model"
	"longtake/video"
	"longtake/video/file"
)

// This file is the only place where kinds of things meet their names.

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
		"models":   listed(models) + ", " + familyNames(),
		"families": familyNames(),
		"released": model.Released(),
		"policies": listed(policies),
		"selves":   listed(selves),
		"crosses":  listed(crosses),
		"presets":  presetsText(),
		"formats":  file.Known,
		"served":   served, "servedplain": servedPlain, "usualprompt": usualPrompt,
	}
}

// familyNames lists the models that need files.
func familyNames() string {
	var out []string
	for _, f := range model.Families() {
		out = append(out, f.Name)
	}
	return strings.Join(out, ", ")
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
