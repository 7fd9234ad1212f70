package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCommand prints what was built.
type versionCommand struct {
	JSON bool `name:"json" help:"Print one JSON object."`
}

// tool reads what the Go toolchain put into the binary.
func tool() toolRecord {
	t := toolRecord{Name: "longtake", Version: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return t
	}
	if info.Main.Version != "" {
		t.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			t.Revision = s.Value
		case "vcs.modified":
			t.Modified = s.Value == "true"
		}
	}
	return t
}

// Run prints the version.
func (c *versionCommand) Run(out *streams) error {
	t := tool()
	if c.JSON {
		_, err := out.out.Write(jsonText(struct {
			toolRecord
			OS   string `json:"os"`
			Arch string `json:"arch"`
		}{t, runtime.GOOS, runtime.GOARCH}))
		return err
	}
	revision := t.Revision
	if revision != "" {
		revision = ", revision " + revision
	}
	if t.Modified {
		revision += " with changes"
	}
	_, err := fmt.Fprintf(out.out, "longtake %s%s, %s %s/%s\n", t.Version, revision, t.Go, runtime.GOOS, runtime.GOARCH)
	return err
}
