package cpu

import (
	"testing"

	"longtake/compute"
	"longtake/compute/computetest"
)

func TestEveryClassConforms(t *testing.T) {
	all := testClasses()
	if raceBuild {
		all = all[:1]
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			tol := computetest.F32
			if c.cache == compute.BF16 {
				tol = computetest.BF16
			}
			computetest.Run(t, func(t *testing.T) compute.Device {
				return &Device{class: c, pool: newPool(2)}
			}, tol)
		})
	}
}
