//go:build linux && (amd64 || arm64) && !nocuda

package main

import (
	"errors"
	"strings"
	"testing"

	"longtake/compute"
)

// Without a GPU, --device auto runs on the CPU and says why in a line, and --device cuda fails with all that was looked for, as TestAMissingLibraryTellsEverythingThatWasTried has it.
func TestWithoutAGPUAutoSaysWhyAndCUDAWhatWasLookedFor(t *testing.T) {
	gpu, err := openDevice("cuda", deviceFlags{})
	if err == nil {
		gpu.Device.Close()
		t.Skip("needs a machine without a GPU, as CI's is")
	}
	if !errors.Is(err, compute.ErrUnsupported) || !strings.HasPrefix(err.Error(), "cuda: ") {
		t.Errorf("--device cuda: %v", err)
	}
	p, err := openDevice("auto", deviceFlags{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Device.Close()
	if p.kind != "cpu" || !strings.HasPrefix(p.why, "cuda: ") || strings.Contains(p.why, "\n") {
		t.Errorf("--device auto: %s, %q", p.kind, p.why)
	}
}
