package cuda

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"longtake/compute"
)

func TestArenasCountAsTheMeterDoes(t *testing.T) {
	d, f := fakeDevice(t)
	fill := func(a compute.Arena) {
		a.Tensor(compute.F32, 3, 5)
		a.Tensor(compute.BF16, 7, 129)
		a.Tensor(compute.I32, 1)
		a.Matrix(compute.Host{DType: compute.BF16, Shape: []int{3, 5}, Data: make([]byte, 30)})
		a.Matrix(compute.Host{DType: compute.F16, Shape: []int{9, 100}, Data: make([]byte, 1800)})
		a.Matrix(compute.Host{DType: compute.F32, Shape: []int{9, 100}, Data: make([]byte, 3600)})
	}
	meter := &compute.Meter{Device: d}
	fill(meter)
	before := f.taken
	a, err := d.NewArena(meter.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	fill(a)
	if a.Err() != nil || a.Bytes() != meter.Bytes() {
		t.Errorf("arena %d bytes (%v), meter %d", a.Bytes(), a.Err(), meter.Bytes())
	}
	if got := d.Memory(); got.Used != meter.Bytes() || got.Peak != got.Used || got.Free != f.capacity-f.taken {
		t.Errorf("memory %+v", got)
	}
	if x := a.Tensor(compute.F32, 1); !x.IsZero() || !errors.Is(a.Err(), compute.ErrNoMemory) {
		t.Errorf("a full arena gave %v, %v", x, a.Err())
	}
	a.Free()
	if f.taken != before || d.Memory().Used != 0 {
		t.Errorf("%d bytes left after Free", f.taken-before)
	}
}

func TestTensorsAreZeroedAlignedAndApart(t *testing.T) {
	d, f := fakeDevice(t)
	a, _ := d.NewArena(0)
	defer a.Free()
	x, y := a.Tensor(compute.BF16, 5), a.Tensor(compute.F32, 4)
	if address(x)%256 != 0 || address(y)%256 != 0 || address(y)-address(x) != 256 {
		t.Errorf("addresses %#x %#x", address(x), address(y))
	}
	if got := f.at(address(y), 16); !bytes.Equal(got, make([]byte, 16)) {
		t.Errorf("new tensor holds %x", got)
	}
	big := a.Tensor(compute.F32, 40<<20) // larger than a block
	if a.Err() != nil || big.Bytes() != 160<<20 {
		t.Errorf("growing arena: %v", a.Err())
	}
}

func TestOutOfMemoryIsTypedAndASmallerArenaWorksAfterwards(t *testing.T) {
	d, f := fakeDevice(t)
	if _, err := d.NewArena(2 << 30); !errors.Is(err, compute.ErrNoMemory) || !strings.Contains(err.Error(), "take 2048 MiB of GPU memory (1024 of 1024 MiB free)") {
		t.Errorf("too large: %v", err)
	}
	a, _ := d.NewArena(0)
	if x := a.Tensor(compute.F32, 1<<29); !x.IsZero() || !errors.Is(a.Err(), compute.ErrNoMemory) {
		t.Errorf("too large a tensor gave %v, %v", x, a.Err())
	}
	if m := a.Matrix(compute.Host{DType: compute.F32, Shape: []int{1, 2}, Data: make([]byte, 8)}); m != nil {
		t.Errorf("after a failure the arena gave %v", m)
	}
	a.Free()
	b, err := d.NewArena(1 << 20)
	if err != nil || b.Tensor(compute.F32, 100).IsZero() {
		t.Errorf("smaller arena: %v", err)
	}
	b.Free()
	f.capacity = f.taken + 1<<20 // less than a block of a growing arena
	c, _ := d.NewArena(0)
	if x := c.Tensor(compute.F32, 1000); x.IsZero() {
		t.Errorf("a small tensor in little memory: %v", c.Err())
	}
}

func TestMatricesKeepOrRoundTheirElements(t *testing.T) {
	values := []float32{1, -2.5, 0.1, 65504, 1e-8, 3.14159}
	f32, f16 := make([]byte, 24), []byte{0, 0x3c, 0, 0xc1, 0x66, 0x2e, 0xff, 0x7b, 0, 0, 0x48, 0x42}
	for i, v := range values {
		binary.LittleEndian.PutUint32(f32[4*i:], math.Float32bits(v))
	}
	for _, c := range []struct {
		name    string
		weights compute.DType
		host    compute.Host
		want    []float32
	}{
		{"f32 stays", compute.F32, compute.Host{DType: compute.F32, Shape: []int{2, 3}, Data: f32}, values},
		{"f32 is rounded on request", compute.BF16, compute.Host{DType: compute.F32, Shape: []int{2, 3}, Data: f32}, []float32{1, -2.5, 0.10009765625, 65536, 1.0011717677116394e-08, 3.140625}},
		{"f16 becomes bf16", compute.BF16, compute.Host{DType: compute.F16, Shape: []int{2, 3}, Data: f16}, []float32{1, -2.5, 0.10009765625, 65536, 0, 3.140625}},
		{"f16 is widened in float32 mode", compute.F16, compute.Host{DType: compute.F16, Shape: []int{2, 3}, Data: f16}, []float32{1, -2.5, 0.0999755859375, 65504, 0, 3.140625}},
		{"bf16 stays in float32 mode, every row three times", compute.F16, compute.Host{DType: compute.BF16, Shape: []int{2, 3}, Data: []byte{0x80, 0x3f, 0x20, 0xc0, 0xcd, 0x3d, 0, 0, 1, 0, 0, 0x7f}},
			[]float32{1, -2.5, 0.10009765625, 1, -2.5, 0.10009765625, 1, -2.5, 0.10009765625, 0, 9.18355e-41, 1.7014118e+38, 0, 9.18355e-41, 1.7014118e+38, 0, 9.18355e-41, 1.7014118e+38}},
	} {
		f := newFakeGPU()
		o := Options{CacheDir: t.TempDir(), Weights: c.weights}
		if c.weights == compute.F16 { // stands for the mode
			o.Weights, o.Float32 = compute.F32, true
		}
		d, err := newDevice(f, &fakeCompiler{}, o)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := d.NewArena(0)
		m := a.Matrix(c.host).(*matrix)
		if out, in := m.Dims(); out != 2 || in != 3 {
			t.Errorf("%s: dims %d %d", c.name, out, in)
		}
		got := f.at(address(m.Tensor), int(m.Bytes()))
		if bytes := d.MatrixBytes(c.host); bytes != m.Bytes() {
			t.Errorf("%s: %d bytes are promised, %d taken", c.name, bytes, m.Bytes())
		}
		for i, want := range c.want {
			var v float32
			if m.half {
				v = compute.F32FromBF16(binary.LittleEndian.Uint16(got[2*i:]))
			} else {
				v = math.Float32frombits(binary.LittleEndian.Uint32(got[4*i:]))
			}
			if v != want {
				t.Errorf("%s: element %d is %v, want %v", c.name, i, v, want)
			}
		}
	}
}

func TestTransfersGoThroughPinnedMemoryInPieces(t *testing.T) {
	d, f := fakeDevice(t)
	q, _ := d.NewQueue()
	a, _ := d.NewArena(0)
	for _, n := range []int{1, stagingBytes, stagingBytes + 1, 3*stagingBytes - 5} {
		x := a.Tensor(compute.U8, n)
		src, dst := make([]byte, n), make([]byte, n)
		for i := range src {
			src[i] = byte(i * 7)
		}
		q.Upload(x, src)
		if !bytes.Equal(f.at(address(x), n), src) {
			t.Errorf("upload of %d bytes differs", n)
		}
		q.Download(dst, x)
		if q.Err() != nil || !bytes.Equal(dst, src) {
			t.Errorf("download of %d bytes differs (%v)", n, q.Err())
		}
	}
	q.Close()
	a.Free()
	if err := d.Close(); err != nil || f.taken != 0 || len(f.pinned) != 0 || f.streams != 0 || f.events != 0 || len(f.modules) != 0 {
		t.Errorf("left after Close: %d bytes, %d pinned, %d streams, %d events, %d modules (%v)", f.taken, len(f.pinned), f.streams, f.events, len(f.modules), err)
	}
}

func TestSmallUploadsDoNotMakeTheHostWait(t *testing.T) {
	d, f := fakeDevice(t)
	waits := CountWaits(d)
	q, _ := d.NewQueue()
	defer q.Close()
	a, _ := d.NewArena(0)
	const size = 1000
	x := a.Tensor(compute.U8, size)
	for i := range 2 * stagingBytes / 1024 {
		src := slices.Repeat([]byte{byte(i)}, size)
		q.Upload(x, src)
		if !slices.Equal(f.at(address(x), size), src) {
			t.Fatalf("upload %d differs", i)
		}
	}
	if n := waits(); n != 0 || q.Err() != nil {
		t.Errorf("%d waits (%v), want none: both buffers were free", n, q.Err())
	}
	for range stagingBytes / 1024 {
		q.Upload(x, make([]byte, size))
	}
	if n := waits(); n != 1 {
		t.Errorf("%d waits for a buffer that has been filled again, want 1", n)
	}
}

func TestTheFirstFailureSticksToItsQueue(t *testing.T) {
	d, f := fakeDevice(t)
	q, _ := d.NewQueue()
	other, _ := d.NewQueue()
	a, _ := d.NewArena(0)
	x := a.Tensor(compute.F32, 8)
	f.failNext["Launch"] = &Error{Call: "cuLaunchKernel", Code: 1, Text: "CUDA_ERROR_INVALID_VALUE: invalid argument"}
	q.Clamp(x, x, 0, 1)
	q.Upload(x, make([]byte, 32))
	want := "cuda: clamp: cuLaunchKernel: CUDA_ERROR_INVALID_VALUE: invalid argument (1)"
	if err := q.Wait(); err == nil || err.Error() != want || len(f.launches) != 0 {
		t.Errorf("error %v, launches %v", err, f.launches)
	}
	if other.Clamp(x, x, 0, 1); other.Err() != nil || len(f.launches) != 1 {
		t.Errorf("the other queue: %v, %v", other.Err(), f.launches)
	}
	atomic.StoreUint32(other.(*queue).fault, 2)
	if err := other.Err(); err == nil || err.Error() != "cuda: rope: a row or column position lies outside its table" {
		t.Errorf("fault of a kernel: %v", err)
	}
	third, _ := d.NewQueue()
	f.failNext["Sync"] = &Error{Call: "cuStreamSynchronize", Code: 700, Text: "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"}
	if err := third.Wait(); err == nil || third.Err() != err {
		t.Errorf("fault of the device: %v, then %v", err, third.Err())
	}
	third.Close()
	if !strings.Contains(third.Err().Error(), "ILLEGAL_ADDRESS") {
		t.Errorf("after Close: %v", third.Err())
	}
}

func TestGraphsRecordAndReplay(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	if _, ok := opened.(interface {
		Capture(func()) (io.Closer, error)
		Replay(io.Closer)
	}); !ok {
		t.Error("the queue's graphs are not found by the documented interface")
	}
	a, _ := d.NewArena(0)
	x := a.Tensor(compute.F32, 8)
	g, err := q.Capture(func() { q.Clamp(x, x, 0, 1); q.Activate(x, x, compute.SiLU) })
	if err != nil || len(f.launches) != 2 {
		t.Fatalf("capture: %v, %v", err, f.launches)
	}
	q.Replay(g)
	q.Replay(g)
	if strings.Join(f.calls, " ") != "LaunchGraph LaunchGraph" || q.Err() != nil {
		t.Errorf("calls %v, %v", f.calls, q.Err())
	}
	if _, err := q.Capture(func() { q.Upload(x, make([]byte, 32)) }); !errors.Is(err, errRecording) {
		t.Errorf("upload inside: %v", err)
	}
	if _, err := q.Capture(func() { q.Wait() }); !errors.Is(err, errRecording) || q.Err() != nil {
		t.Errorf("wait inside: %v, %v", err, q.Err())
	}
	func() {
		defer func() { recover() }()
		q.Capture(func() { panic("wrong shape") })
	}()
	if f.capture || f.graphs != 1 || q.recording {
		t.Errorf("after a panic: capturing %v, %d graphs", f.capture, f.graphs)
	}
	if g.Close(); f.graphs != 0 {
		t.Errorf("%d graphs after Close", f.graphs)
	}
}

func TestProgrammerErrorsPanicWithBothShapes(t *testing.T) {
	d, _ := fakeDevice(t)
	q, _ := d.NewQueue()
	a, _ := d.NewArena(0)
	x, y := a.Tensor(compute.F32, 4, 8), a.Tensor(compute.BF16, 8, 4)
	freed, _ := d.NewArena(1 << 10)
	gone := freed.Tensor(compute.F32, 4, 8)
	freed.Free()
	outside := x
	outside.Shape[0] = 1 << 30
	for name, c := range map[string]struct {
		run  func()
		want string
	}{
		"shapes": {func() { q.Norm(x, y, compute.Norm{}) }, "f32[4 8] bf16[8 4]"},
		"freed":  {func() { q.Clamp(x, gone, 0, 1) }, "arena that was freed"},
		"host":   {func() { q.Clamp(x, compute.NewTensor(nil, 0, compute.F32, 4, 8), 0, 1) }, "not on this device"},
		"bounds": {func() { q.Activate(outside, outside, compute.None) }, "leaves its block"},
		"types":  {func() { q.Activate(x, a.Tensor(compute.I32, 4, 8), compute.None) }, "neither f32 nor bf16"},
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.Contains(r, c.want) {
					t.Errorf("%s: panic %q, want %q", name, r, c.want)
				}
			}()
			c.run()
		}()
	}
}
