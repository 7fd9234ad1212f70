package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"longtake/compute"
	"longtake/compute/cpu"
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
	small     bool              // the model is: a GPU computes in float32
	progress  func(line string) // while kernels are compiled
}

// devices opens a device by its name; "cuda:N" is cuda with a number.
var devices = map[string]func(deviceFlags) (processor, error){
	"auto": openBest,
	"cpu":  openCPU,
	"cuda": openCUDA,
}

// precisions are how a GPU multiplies; the first is the default, and fp8 needs one.
var precisions = []string{"", "bf16", "fp8"}

func openCPU(f deviceFlags) (processor, error) {
	if f.precision == "fp8" {
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
	if f.precision == "fp8" {
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
	if !slices.Contains(precisions, f.precision) {
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
