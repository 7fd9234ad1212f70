//go:build !nocuda

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"longtake/compute"
	"longtake/compute/cuda"
)

func openCUDA(f deviceFlags) (processor, error) {
	if f.Kernel != "" || f.Threads != 0 {
		return processor{}, errors.New("--cpu-kernel and --threads belong to --device cpu")
	}
	o := cuda.Options{GPU: f.gpu, Weights: compute.BF16, Progress: f.progress}
	switch {
	case f.precision == "fp8":
		o.FP8 = cuda.FP8Best
	case f.small:
		o.Weights, o.Float32 = compute.F32, true
	}
	d, err := cuda.New(o)
	if err != nil {
		return processor{}, err
	}
	return processor{Device: d, kind: "cuda", kernel: "cuda"}, nil
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
