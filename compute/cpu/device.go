package cpu

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"longtake/compute"
)

// Options choose the kernels and threads of a device.
type Options struct {
	// Kernel names a class, see Kernels; "" takes the best one.
	Kernel string
	// Float32 leaves out classes that multiply in bfloat16: for comparisons with numbers of float32, and for laws that a
	// choice between nearly equal keys would break.
	Float32 bool
	// Threads counts the goroutines that compute, the caller included; 0 means GOMAXPROCS.
	Threads int
}

// Device is the processor as a compute.Device. It is safe for concurrent use: several queues share its workers.
type Device struct {
	usage
	class *class
	pool  *pool
}

// New starts a device with its workers. It fails for a kernel class that this machine cannot run, and names those it can.
func New(o Options) (*Device, error) {
	all := classes()
	d := &Device{}
	for _, c := range all {
		if o.Float32 && c.cache == compute.BF16 {
			continue
		}
		if o.Kernel == "" || o.Kernel == c.name {
			d.class = c
			break
		}
	}
	if d.class == nil && o.Float32 && o.Kernel != "" && slices.Contains(Kernels(), o.Kernel) {
		return nil, fmt.Errorf("kernel class %q multiplies in bfloat16: %w", o.Kernel, compute.ErrUnsupported)
	}
	if d.class == nil {
		return nil, fmt.Errorf("kernel class %q cannot run on this %s machine, possible are %s: %w",
			o.Kernel, runtime.GOARCH, strings.Join(Kernels(), ", "), compute.ErrUnsupported)
	}
	if o.Threads < 0 {
		return nil, fmt.Errorf("%d threads, want 0 (all) or more", o.Threads)
	}
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	d.pool = newPool(o.Threads)
	return d, nil
}

// Use bounds how many of the device's threads compute from now on, those that call included; 0 or more than it has is all of them.
// Results are the same. It must not be called while operations run.
func (d *Device) Use(threads int) {
	if threads <= 0 || threads > d.pool.threads {
		threads = d.pool.threads
	}
	d.pool.limit(threads)
}

// Kernels names the kernel classes that this machine can run, best first.
func Kernels() []string {
	var names []string
	for _, c := range classes() {
		names = append(names, c.name)
	}
	return names
}

// Name returns kernel class and threads, "cpu avx2, 2 threads".
func (d *Device) Name() string {
	plural := "s"
	if d.pool.threads == 1 {
		plural = ""
	}
	note := ""
	if d.class.cache == compute.BF16 {
		note = " (bf16 operands)"
	}
	return fmt.Sprintf("cpu %s%s, %d thread%s", d.class.name, note, d.pool.threads, plural)
}

// Types returns F32 activations, and F32 operands and caches except for the class amx, which multiplies bfloat16.
func (d *Device) Types() compute.Types {
	return compute.Types{Activation: compute.F32, Operand: d.class.cache, Cache: d.class.cache}
}

// Memory returns the system's total and available memory where known (Linux), and what arenas have reserved. Pages are
// touched later, so Used is an upper bound of what they take.
func (d *Device) Memory() compute.Memory {
	m := compute.Memory{Used: d.used.Load(), Peak: d.peak.Load()}
	m.Total, m.Free = systemMemory()
	return m
}

// Close ends the workers. Queues must be idle.
func (d *Device) Close() error {
	d.pool.close()
	return nil
}

// NewQueue returns a queue with scratch of its own.
func (d *Device) NewQueue() (compute.Queue, error) {
	q := &Queue{dev: d, class: d.class, scratch: newScratch()}
	q.job.shares = make([]share, d.pool.threads)
	d.pool.join(&q.job)
	return q, nil
}
