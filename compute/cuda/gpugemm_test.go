//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"

	"longtake/compute"
)

// gemmLibrary names the environment variable with the path of dev/gpu/gemm.c as a shared library.
const gemmLibrary = "LONGTAKE_GEMM"

// BenchmarkLinearBesideC times products by this package and by cuBLASLt called from C, in turns: the same process and tensors, the
// same epilogue and type of bias, the library's first choice with the same work space, graphs of 24 calls.
func BenchmarkLinearBesideC(b *testing.B) {
	path := os.Getenv(gemmLibrary)
	if path == "" {
		b.Skipf("%s is not set: dev/gpu/measure.sh gemm builds the library and runs this", gemmLibrary)
	}
	r := newBench(b) // it opens cuBLASLt, which the library needs
	lib, err := purego.Dlopen(path, purego.RTLD_NOW)
	if err != nil {
		b.Fatal(err)
	}
	capture, err := purego.Dlsym(lib, "gemm_capture")
	if err != nil {
		b.Fatal(err)
	}
	replay, err := purego.Dlsym(lib, "gemm_replay")
	if err != nil {
		b.Fatal(err)
	}
	const calls, rounds = 24, 15
	for _, size := range wanLinears {
		in, out := size[0], size[1]
		x, w, bias, y := r.normal(1, compute.BF16, wanTokens, in), r.weight(out, in), r.normal(1, compute.BF16, out), r.Tensor(compute.BF16, wanTokens, out)
		for kind, call := range []func(){
			func() { r.Linear(y, x, w, compute.Tensor{}, compute.None) },
			func() { r.Linear(y, x, w, bias, compute.None) },
			func() { r.Linear(y, x, w, bias, compute.GELU) },
		} {
			b.Run(fmt.Sprintf("%dx%dx%d %s", wanTokens, in, out, [...]string{"plain", "bias", "bias and gelu"}[kind]), func(b *testing.B) {
				call()
				g, err := r.Capture(func() {
					for range calls {
						call()
					}
				})
				if err != nil {
					b.Fatal(err)
				}
				defer g.Close()
				if err := r.Wait(); err != nil {
					b.Fatal(err)
				}
				onThread(b, r, func() {
					if code, _, _ := purego.SyscallN(capture, uintptr(address(x)), uintptr(address(w.(*matrix).Tensor)), uintptr(address(bias)), uintptr(address(y)),
						wanTokens, uintptr(in), uintptr(out), uintptr(kind), calls); code != 0 {
						b.Fatalf("gemm_capture: error %d", code)
					}
				})
				var ours, theirs, ratio []float64
				for range rounds {
					u := medianOf(b, r, 1, func() { r.Replay(g) }) / calls
					var us float64
					onThread(b, r, func() { purego.SyscallN(replay, uintptr(unsafe.Pointer(&us)), 4) })
					ours, theirs, ratio = append(ours, u), append(theirs, us/calls), append(ratio, us/calls/u)
				}
				slices.Sort(ours)
				slices.Sort(theirs)
				slices.Sort(ratio)
				b.ReportMetric(ours[rounds/2], "us/call")
				b.ReportMetric(theirs[rounds/2], "us/call-in-C")
				b.ReportMetric(ratio[rounds/2], "speed-of-C")
				b.ReportMetric(2*float64(wanTokens)*float64(in)*float64(out)/ours[rounds/2]/1e6, "TFLOP/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// onThread runs f on a thread with the GPU's context.
func onThread(b *testing.B, r *bench, f func()) {
	g := r.Device.drv.(*gpu)
	if code := g.current(); code != 0 {
		b.Fatalf("no context: error %d", code)
	}
	defer runtime.UnlockOSThread()
	f()
}
