// Package devicetest opens the devices that tests of other packages run on: the classes of the CPU and a GPU. Only tests import it.
package devicetest

import (
	"errors"
	"os"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
)

// Kernels names the devices that goldens run on: every class of the CPU, with -short the best alone, and a GPU in bfloat16 and
// in float32.
func Kernels() []string {
	classes := cpu.Kernels()
	if testing.Short() {
		classes = classes[:1]
	}
	return append(classes, "cuda", "cuda-float32")
}

// Open opens one of Kernels, the CPU's best class for "", or its best that multiplies in float32 for "float32". The caller closes it. Without a GPU its tests are skipped, see GPU.
func Open(t testing.TB, kernel string) compute.Device {
	t.Helper()
	switch kernel {
	case "cuda":
		return GPU(t, cuda.Options{Weights: compute.BF16})
	case "cuda-float32":
		return GPU(t, cuda.Options{Float32: true})
	}
	o := cpu.Options{Kernel: kernel}
	if kernel == "float32" {
		o = cpu.Options{Float32: true}
	}
	dev, err := cpu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// GPU opens a GPU, which the caller closes. Where there is none the test is skipped, or fails if LONGTAKE_REQUIRE_GPU is set.
func GPU(t testing.TB, o cuda.Options) compute.Device {
	t.Helper()
	dev, err := cuda.New(o)
	if errors.Is(err, compute.ErrUnsupported) && os.Getenv("LONGTAKE_REQUIRE_GPU") == "" {
		t.Skipf("no NVIDIA GPU here; on one: LONGTAKE_REQUIRE_GPU=1 go test -v -run '%s', or dev/gpu/run.sh for all", t.Name())
	}
	if err != nil {
		t.Fatal(err)
	}
	return dev
}
