package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
)

// processor is an open device and what a record says about it. The device is not embedded: what is handed to a model must be the
// device itself, or the abilities that it has beyond compute.Device could not be seen.
type processor struct {
	Device       compute.Device
	kind, kernel string
	// why says why another device was not taken, "" if there is nothing to say.
	why string
}

// deviceFlags are the flags that choose a device.
type deviceFlags struct {
	cpu.Options
	gpu       int
	precision string            // bf16, fp8; "" is bf16
	progress  func(line string) // while kernels are compiled
}

// devices opens a device by its name; "cuda:N" is cuda with a number.
var devices = map[string]func(deviceFlags) (processor, error){
	"auto": openBest,
	"cpu":  openCPU,
	"cuda": openCUDA,
}

// precisions are how a GPU multiplies.
var precisions = map[string]cuda.FP8{"": cuda.NoFP8, "bf16": cuda.NoFP8, "fp8": cuda.FP8Best}

func openCPU(f deviceFlags) (processor, error) {
	if precisions[f.precision] != cuda.NoFP8 {
		return processor{}, fmt.Errorf("--precision %s needs --device cuda", f.precision)
	}
	d, err := cpu.New(f.Options)
	if err != nil {
		return processor{}, err
	}
	if f.Kernel == "" {
		f.Kernel = cpu.Kernels()[0]
	}
	return processor{Device: d, kind: "cpu", kernel: f.Kernel}, nil
}

func openCUDA(f deviceFlags) (processor, error) {
	if f.Kernel != "" || f.Threads != 0 {
		return processor{}, errors.New("--cpu-kernel and --threads belong to --device cpu")
	}
	d, err := cuda.New(cuda.Options{GPU: f.gpu, Weights: compute.BF16, FP8: precisions[f.precision], Progress: f.progress})
	if err != nil {
		return processor{}, err
	}
	return processor{Device: d, kind: "cuda", kernel: "cuda"}, nil
}

// openBest takes the first GPU, and where there is none the CPU, saying why. Flags of the CPU choose the CPU.
func openBest(f deviceFlags) (processor, error) {
	if f.Kernel != "" || f.Threads != 0 {
		return openCPU(f)
	}
	p, err := openCUDA(f)
	if err == nil {
		return p, nil
	}
	if !errors.Is(err, compute.ErrUnsupported) {
		return processor{}, fmt.Errorf("%w (--device cpu does without)", err)
	}
	if precisions[f.precision] != cuda.NoFP8 {
		return processor{}, fmt.Errorf("--precision %s needs a GPU: %s", f.precision, firstClause(err))
	}
	p, cpuErr := openCPU(f)
	p.why = firstClause(err)
	return p, cpuErr
}

// openDevice starts a device; what the machine cannot do is the user's to change.
func openDevice(name string, f deviceFlags) (processor, error) {
	if number, ok := strings.CutPrefix(name, "cuda:"); ok {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > 1024 {
			return processor{}, usagef("--device %q: the GPU is a number from 0", name)
		}
		name, f.gpu = "cuda", n
	}
	open, err := named("device", name, devices)
	if err != nil {
		return processor{}, err
	}
	if _, ok := precisions[f.precision]; !ok {
		return processor{}, usagef("--precision %q: known are bf16, fp8", f.precision)
	}
	if f.Threads < 0 || f.Threads > 1024 {
		return processor{}, usagef("--threads %d: must be between 0 (all cores) and 1024", f.Threads)
	}
	dev, err := open(f)
	if err != nil {
		return processor{}, usageError{err}
	}
	return dev, nil
}

// firstClause is an error's first line up to its list of details.
func firstClause(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	line, _, _ = strings.Cut(line, ";")
	return line
}

// checkGPU runs the self-test of a GPU's kernels; a line for each part.
func checkGPU(number int, progress func(string)) (lines []string, err error) {
	d, err := cuda.New(cuda.Options{GPU: number, Weights: compute.BF16, Progress: progress})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	for _, c := range d.SelfTest() {
		if c.Error != "" {
			return lines, fmt.Errorf("%s: %s", c.Name, c.Error)
		}
		lines = append(lines, c.Name+": "+c.Detail)
	}
	return lines, nil
}

// gpus describes what CUDA finds, a line each; where it finds nothing, why.
func gpus() (lines []string, found int) {
	info, err := cuda.Probe()
	if err != nil {
		return []string{firstClause(err)}, 0
	}
	for _, g := range info.GPUs {
		lines = append(lines, g.String())
	}
	lines = append(lines, fmt.Sprintf("driver for CUDA %s, NVRTC %s, kernels kept in %s", info.Driver, info.Compiler, info.CacheDir))
	for _, name := range slices.Sorted(maps.Keys(info.Libraries)) {
		lines = append(lines, name+" from "+info.Libraries[name])
	}
	return lines, len(info.GPUs)
}
