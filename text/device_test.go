package text

import (
	"errors"
	"os"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
)

// openDevice opens a class of the CPU, its best for "", or a GPU in bfloat16 ("cuda") or float32 ("cuda-float32"). Without a GPU its tests are skipped, or fail if
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
		t.Skip("no NVIDIA GPU here; on one: LONGTAKE_REQUIRE_GPU=1 go test ./text -run /kernel=cuda -v")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dev
}
