package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"longtake/compute/cpu"
	"longtake/model"
	"longtake/weights"
)

// modelsCommand looks at models.
type modelsCommand struct {
	List    listCommand    `cmd:"" default:"withargs" help:"List the models that this program knows."`
	Inspect inspectCommand `cmd:"" help:"Look into a weight file: what it is, its tensors, what is missing or unexpected, whether every number is finite."`
	Convert convertCommand `cmd:"" help:"Write a weight file (.pt, .pth, sharded) as one safetensors file."`
	Pull    pullCommand    `cmd:"" help:"Bring a released model into the own store, from a folder or URL that you name, checked by SHA-256."`
	Verify  verifyCommand  `cmd:"" help:"Check a model's files: all there, all tensors, all numbers; what it will take."`
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
	Memory  int64   `json:"memory"` // bytes of the weights on the CPU device; 0 of models that need files
	About   string  `json:"about"`
	// Of models that need files: where the network was found, or why not.
	Found   string `json:"found,omitempty"`
	Missing string `json:"missing,omitempty"`
}

// Run lists the models.
func (c *listCommand) Run(out *streams) error {
	dev, err := openCPU(deviceFlags{Options: cpu.Options{Threads: 1}})
	if err != nil {
		return err
	}
	defer dev.Device.Close()
	var list []modelInfo
	for _, name := range strings.Split(listed(models), ", ") {
		m := models[name]
		e, err := m.open(dev.Device)
		if err != nil {
			return fmt.Errorf("model %s: %w", name, err)
		}
		list = append(list, modelInfo{modelRecord: modelRecord{Name: e.Name, Hash: e.Hash(), Parameters: e.Parameters}, Licence: m.licence,
			Width: e.Width, Height: e.Height, FPS: e.FPS, Memory: e.WeightBytes(), About: m.about})
		e.Close()
	}
	for _, r := range model.Releases() {
		info := modelInfo{modelRecord: modelRecord{Name: r.Name}, Licence: r.Licence, Width: r.Width, Height: r.Height, FPS: model.WorldFPS, About: r.About}
		if file, ok := model.UsualPlaces(os.Getenv).World(r.Name); ok {
			info.Found = file
		} else {
			info.Missing = "longtake models pull " + r.Name
		}
		list = append(list, info)
	}
	for _, f := range model.Families() {
		info := modelInfo{modelRecord: modelRecord{Name: f.Name}, Licence: f.Licence, Width: 832, Height: 480, FPS: 16, About: f.About}
		if files, err := (model.Source{Model: f.Name, Places: model.UsualPlaces(os.Getenv)}).Find(); err == nil {
			info.Found = files.Network
		} else {
			info.Missing = err.Error()
		}
		list = append(list, info)
	}
	if c.JSON {
		_, err := out.out.Write(jsonText(map[string]any{"models": list}))
		return err
	}
	return printModels(out.out, list)
}

func printModels(to io.Writer, list []modelInfo) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tPARAMETERS\tMEMORY\tFRAME\tLICENCE\tSHA256\tABOUT")
	for _, m := range list {
		if m.Hash == "" {
			continue
		}
		fmt.Fprintf(w, "%s\t%.1f M\t%s\t%dx%d at %g fps\t%s\t%.12s\t%s\n",
			m.Name, float64(m.Parameters)/1e6, bytesText(m.Memory), m.Width, m.Height, m.FPS, m.Licence, m.Hash, m.About)
	}
	fmt.Fprintln(w, "\nOTHERS\tFRAME\tLICENCE\tFILES\tABOUT")
	for _, m := range list {
		if m.Hash != "" {
			continue
		}
		where := m.Found
		if where == "" {
			where = "not here"
		}
		fmt.Fprintf(w, "%s\t%dx%d at %g fps\t%s\t%s\t%s\n", m.Name, m.Width, m.Height, m.FPS, m.Licence, where, m.About)
	}
	return w.Flush()
}

type inspectCommand struct {
	File string `arg:"" help:"A .safetensors, .pt or .pth file, or the .index.json of a sharded model."`
	Key  string `name:"weights-key" placeholder:"KEY" help:"Dictionary of a checkpoint that is compared with what a network needs."`
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
	Kind       string            `json:"kind"`
	Looks      string            `json:"looks_like"`
	Families   []string          `json:"families,omitempty"` // that run such a network
	Usable     bool              `json:"usable"`
	Faults     string            `json:"faults,omitempty"` // what is missing, unexpected or of a wrong shape, or why it is not usable
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
	if err := info.examine(f, c.Key); err != nil {
		return err
	}
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
	fmt.Fprintf(w, "%s: %s", info.Kind, info.Looks)
	if len(info.Families) > 0 {
		fmt.Fprintf(w, "; runs as %s", strings.Join(info.Families, ", "))
	}
	fmt.Fprintln(w)
	if info.Faults != "" {
		fmt.Fprintln(w, info.Faults)
	}
	fmt.Fprintf(w, "%d tensors, %d parameters, %s, sha256 %s\n", len(info.Tensors), info.Parameters, bytesText(int64(info.Bytes)), info.Hash)
	return w.Flush()
}

// examine says what a file is and what is wrong with it.
func (i *fileInfo) examine(f *weights.File, key string) error {
	dev, err := openCPU(deviceFlags{Options: cpu.Options{Threads: 1}})
	if err != nil {
		return err
	}
	defer dev.Device.Close()
	id, report := model.Examine(dev.Device, f, key)
	i.Kind, i.Looks, i.Families, i.Usable, i.Faults = string(id.Kind), id.Text, id.Families, id.Runs && report == nil, id.Why
	if report != nil {
		i.Faults = report.Error()
	}
	return nil
}
