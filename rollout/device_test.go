package rollout_test

import (
	"errors"
	"os"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
)

// kernels names the devices that goldens run on: every class of the CPU, with -short the best alone, and a GPU in bfloat16 and in
// float32.
func kernels() []string {
	classes := cpu.Kernels()
	if testing.Short() {
		classes = classes[:1]
	}
	return append(classes, "cuda", "cuda-float32")
}

// openDevice opens one of kernels, or the CPU's best for "". Without a GPU its tests are skipped, or fail if
// LONGTAKE_REQUIRE_GPU is set.
func openDevice(t testing.TB, kernel string) compute.Device {
	t.Helper()
	var dev compute.Device
	var err error
	switch kernel {
	case "cuda":
		dev, err = cuda.New(cuda.Options{Weights: compute.BF16})
	case "cuda-float32":
		dev, err = cuda.New(cuda.Options{Float32: true})
	default:
		dev, err = cpu.New(cpu.Options{Kernel: kernel})
	}
	if errors.Is(err, compute.ErrUnsupported) && os.Getenv("LONGTAKE_REQUIRE_GPU") == "" {
		t.Skip("no NVIDIA GPU here; on one: LONGTAKE_REQUIRE_GPU=1 go test ./rollout -run /kernel=cuda -v")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dev
}
