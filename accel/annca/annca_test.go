package annca_test

import (
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annca"
	"longtake/attention"
	"longtake/attention/attentiontest"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
	"longtake/internal/devicetest"
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
	dev := devicetest.GPU(t, cuda.Options{Float32: true})
	defer dev.Close()
	keepTheLaws(t, dev)
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
