package annca_test

import (
	"errors"
	"os"
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annca"
	"longtake/attention"
	"longtake/attention/attentiontest"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
)

func TestPoliciesKeepTheLaws(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	keepTheLaws(t, dev)
}

func TestPoliciesKeepTheLawsOnAGPU(t *testing.T) {
	dev := openGPU(t, cuda.Options{Float32: true})
	defer dev.Close()
	keepTheLaws(t, dev)
}

// openGPU opens the GPU, or skips.
func openGPU(t *testing.T, o cuda.Options) compute.Device {
	t.Helper()
	dev, err := cuda.New(o)
	if err != nil && errors.Is(err, compute.ErrUnsupported) && os.Getenv("LONGTAKE_REQUIRE_GPU") == "" {
		t.Skip("no NVIDIA GPU here: dev/gpu/run.sh runs this on one")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func keepTheLaws(t *testing.T, dev compute.Device) {
	t.Helper()
	for _, name := range []string{"exact", "lsh64", "lsh8x4+1", "quant8", "quant2", "pq8"} {
		matcher, err := ann.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		whole, thin := annca.Options{Matcher: matcher, Top: 1000}, annca.Options{Matcher: matcher, Top: 1}
		if name == "lsh8x4+1" {
			whole, thin.Top = annca.Options{All: true}, 0
		}
		t.Run(name, func(t *testing.T) {
			attentiontest.Run(t, dev, attentiontest.Suite{Kind: attention.Cross, Whole: whole, Thin: thin})
		})
	}
}
