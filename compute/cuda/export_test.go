package cuda

import (
	"sync/atomic"
	"testing"
)

// counting is a driver that counts how often the host waits for the GPU.
type counting struct {
	driver
	waits atomic.Int64
}

func (c *counting) Sync(stream uintptr) error {
	c.waits.Add(1)
	return c.driver.Sync(stream)
}

func (c *counting) SyncEvent(event uintptr) error {
	c.waits.Add(1)
	return c.driver.SyncEvent(event)
}

// CountWaits counts how often the host waits for a device, in queues that are opened from now on.
func CountWaits(d *Device) func() int64 {
	c := &counting{driver: d.drv}
	d.drv = c
	return c.waits.Load
}

// FakeDevice is a device whose kernels do nothing.
func FakeDevice(t *testing.T) *Device {
	d, _ := fakeDevice(t)
	return d
}
