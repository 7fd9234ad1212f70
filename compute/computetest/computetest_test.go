package computetest

import (
	"testing"

	"longtake/compute"
)

func TestReferenceIsADevice(t *testing.T) {
	Run(t, func(*testing.T) compute.Device { return Reference() }, F32)
}
