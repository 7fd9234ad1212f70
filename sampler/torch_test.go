package sampler

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
)

func TestTorchNoiseIsPyTorchsStream(t *testing.T) {
	b, err := os.ReadFile("testdata/torch_randn.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Draws map[string]struct {
			Index         []int
			First, Second []float32
		}
	}
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	for name, want := range golden.Draws {
		var seed uint64
		var n int
		if _, err := fmt.Sscanf(name, "%d/%d", &seed, &n); err != nil {
			t.Fatal(err)
		}
		stream := NewTorch(seed)
		for call, values := range [][]float32{want.First, want.Second} {
			got := make([]float32, n)
			stream.Randn(got)
			for i, at := range want.Index {
				if math.Abs(float64(got[at]-values[i])) > 1e-6 {
					t.Errorf("%s call %d: element %d is %v, want %v", name, call, at, got[at], values[i])
				}
			}
		}
	}
}
