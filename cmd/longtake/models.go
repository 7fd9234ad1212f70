package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"longtake/compute/cpu"
	"longtake/weights"
)

// modelsCommand looks at models.
type modelsCommand struct {
	List    listCommand    `cmd:"" default:"withargs" help:"List the models that this program knows."`
	Inspect inspectCommand `cmd:"" help:"List the tensors of a safetensors file and check that every number is finite."`
}

type listCommand struct {
	JSON bool `name:"json" help:"Print one JSON object."`
}

// modelInfo is one row of the list.
type modelInfo struct {
	modelRecord
	Licence string  `json:"licence"`
	Width   int     `json:"width"`
	Height  int     `json:"height"`
	FPS     float64 `json:"fps"`
	Memory  int64   `json:"memory"` // bytes of the weights on the CPU device
	About   string  `json:"about"`
}

// Run lists the models.
func (c *listCommand) Run(out *streams) error {
	dev, err := openCPU(deviceFlags{Options: cpu.Options{Threads: 1}})
	if err != nil {
		return err
	}
	defer dev.Close()
	var list []modelInfo
	for _, name := range strings.Split(listed(models), ", ") {
		m := models[name]
		e, err := m.open(dev)
		if err != nil {
			return fmt.Errorf("model %s: %w", name, err)
		}
		list = append(list, modelInfo{modelRecord{Name: e.Name, Hash: e.Hash, Parameters: e.Parameters}, m.licence, e.Width, e.Height, e.FPS, e.WeightBytes(), m.about})
		e.Close()
	}
	if c.JSON {
		_, err := out.out.Write(jsonText(map[string]any{"models": list}))
		return err
	}
	w := tabwriter.NewWriter(out.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tPARAMETERS\tMEMORY\tFRAME\tLICENCE\tSHA256\tABOUT")
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%.1f M\t%s\t%dx%d at %g fps\t%s\t%.12s\t%s\n",
			m.Name, float64(m.Parameters)/1e6, bytesText(m.Memory), m.Width, m.Height, m.FPS, m.Licence, m.Hash, m.About)
	}
	return w.Flush()
}

type inspectCommand struct {
	File string `arg:"" help:"A .safetensors file, or the .index.json of a sharded model."`
	JSON bool   `name:"json" help:"Print one JSON object."`
}

// tensorInfo is one tensor of a file.
type tensorInfo struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"`
	Bytes int    `json:"bytes"`
}

// fileInfo is a whole weight file.
type fileInfo struct {
	File       string            `json:"file"`
	Hash       string            `json:"sha256"`
	Parameters int               `json:"parameters"`
	Bytes      int               `json:"bytes"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Tensors    []tensorInfo      `json:"tensors"`
	Unreadable []string          `json:"unreadable,omitempty"` // of element types that this program does not compute with
}

// Run lists a file. A file that is damaged or holds numbers that are none is an error.
func (c *inspectCommand) Run(out *streams) error {
	f, err := weights.Open(c.File)
	if err != nil {
		return usageError{err}
	}
	defer f.Close()
	info := fileInfo{File: c.File, Hash: f.Hash(), Metadata: f.Metadata()}
	var readable []string
	for _, name := range f.Names() {
		t, err := f.Tensor(name)
		if err != nil {
			info.Unreadable = append(info.Unreadable, err.Error())
			continue
		}
		readable = append(readable, name)
		info.Parameters += t.Elems()
		info.Bytes += len(t.Data)
		info.Tensors = append(info.Tensors, tensorInfo{name, t.DType.String(), t.Shape, len(t.Data)})
	}
	if len(readable) > 0 {
		if err := f.Check(readable...); err != nil {
			return usageError{err}
		}
	}
	if c.JSON {
		_, err := out.out.Write(jsonText(info))
		return err
	}
	w := tabwriter.NewWriter(out.out, 0, 0, 2, ' ', 0)
	for _, t := range info.Tensors {
		fmt.Fprintf(w, "%s\t%s\t%v\t%d\n", t.Name, t.Type, t.Shape, t.Bytes)
	}
	for _, u := range info.Unreadable {
		fmt.Fprintln(w, u)
	}
	fmt.Fprintf(w, "%d tensors, %d parameters, %s, sha256 %s\n", len(info.Tensors), info.Parameters, bytesText(int64(info.Bytes)), info.Hash)
	return w.Flush()
}
