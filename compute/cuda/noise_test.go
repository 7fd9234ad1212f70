package cuda

import (
	"math"
	"regexp"
	"strconv"
	"testing"
)

// TestTheTableOfLogarithmsIsRight computes kernels/noise/noise_table.cuh again.
func TestTheTableOfLogarithmsIsRight(t *testing.T) {
	text, err := kernelSources.ReadFile("kernels/noise/noise_table.cuh")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`\{(-?0x[0-9a-fp.+-]+), (-?0x[0-9a-fp.+-]+)\}`).FindAllSubmatch(text, -1)
	if len(rows) != 128 {
		t.Fatalf("%d rows", len(rows))
	}
	for i, row := range rows {
		middle := 1 + (float64(i)+0.5)/128
		if i >= 53 {
			middle /= 2
		}
		if i == 127 {
			middle = 1
		}
		inverse, err1 := strconv.ParseFloat(string(row[1]), 64)
		log, err2 := strconv.ParseFloat(string(row[2]), 64)
		if err1 != nil || err2 != nil || inverse != 1/middle || math.Abs(log+math.Log(inverse)) > 1e-16 {
			t.Errorf("row %d has %v and %v, want %v and %v", i, inverse, log, 1/middle, -math.Log(1/middle))
		}
	}
}
