package cuda

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"longtake/compute"
	"longtake/compute/computetest"
)

// gpuRequired makes the absence of a GPU a failure.
const gpuRequired = "LONGTAKE_REQUIRE_GPU"

// openForTest opens the first GPU, or skips.
func openForTest(t testing.TB) *Device {
	t.Helper()
	d, err := New(Options{Progress: func(line string) { t.Log(line) }})
	if err != nil && errors.Is(err, compute.ErrUnsupported) && os.Getenv(gpuRequired) == "" {
		line, _, _ := strings.Cut(err.Error(), ";")
		t.Skipf("no NVIDIA GPU here (%s): dev/gpu/run.sh runs this on one", line)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformanceOnGPU(t *testing.T) {
	computetest.Run(t, func(t *testing.T) compute.Device { return openForTest(t) }, computetest.BF16)
}

func TestImagesOnGPU(t *testing.T) {
	computetest.RunImages(t, func(t *testing.T) compute.Device { return openForTest(t) }, computetest.BF16)
}

func TestConformanceOnGPUInFloat32(t *testing.T) {
	openForTest(t).Close()
	computetest.Run(t, func(t *testing.T) compute.Device {
		d, err := New(Options{Float32: true})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}, computetest.F32)
}

// bench is a device with a queue and an arena for one test.
type bench struct {
	testing.TB
	*Device
	*queue
	compute.Arena
	rng *rand.Rand
}

func newBench(t testing.TB) *bench {
	t.Helper()
	return newBenchOn(t, openForTest(t))
}

// newBenchOn takes the device over.
func newBenchOn(t testing.TB, d *Device) *bench {
	t.Helper()
	opened, err := d.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t, d, opened.(*queue), a, rand.New(rand.NewPCG(rand.Uint64(), 1))}
	t.Cleanup(func() {
		if err := b.Wait(); err != nil {
			t.Logf("queue at the end: %v", err)
		}
		b.queue.Close()
		a.Free()
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// normal is a tensor of normal numbers times scale.
func (b *bench) normal(scale float32, dt compute.DType, dims ...int) compute.Tensor {
	t := b.Tensor(dt, dims...)
	if err := b.Arena.Err(); err != nil {
		b.Fatal(err)
	}
	b.Noise(t, compute.NoiseKey{Seed: b.rng.Uint64()})
	b.Mix(t, scale, t, 0, compute.Tensor{})
	return t
}

// weight is a bfloat16 matrix whose products have the size of their inputs.
func (b *bench) weight(out, in int) compute.Matrix {
	t := b.normal(float32(1/math.Sqrt(float64(in))), compute.BF16, out, in)
	return &matrix{Tensor: t, half: true}
}

func (b *bench) ints(values ...int32) compute.Tensor {
	t := b.Tensor(compute.I32, len(values))
	raw, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		b.Fatal(err)
	}
	b.Upload(t, raw)
	return t
}

func (b *bench) floats(t compute.Tensor) []float32 {
	b.Helper()
	raw := make([]byte, t.Bytes())
	b.Download(raw, t)
	if err := b.queue.Err(); err != nil {
		b.Fatal(err)
	}
	v := make([]float32, t.Elems())
	for i := range v {
		if t.DType == compute.BF16 {
			v[i] = compute.F32FromBF16(binary.LittleEndian.Uint16(raw[2*i:]))
		} else {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	}
	return v
}

// distance is the norm of the difference over the norm of want.
func distance(got, want []float32) float64 {
	var d, n float64
	for i, w := range want {
		e := float64(got[i]) - float64(w)
		d += e * e
		n += float64(w) * float64(w)
	}
	return math.Sqrt(d / n)
}

// wanLinears are the products of a Wan 1.3B block, [in, out].
var wanLinears = [][2]int{{1536, 1536}, {1536, 8960}, {8960, 1536}, {1536, 4608}}

func TestLinearAgreesWithThePlainKernelAtModelSizes(t *testing.T) {
	b := newBench(t)
	for _, size := range wanLinears {
		for _, rows := range []int{1, 77, 4680} {
			for act := range compute.ReLU + 1 {
				x, w, bias := b.normal(1, compute.BF16, rows, size[0]), b.weight(size[1], size[0]), b.normal(1, compute.F32, size[1])
				got, want := b.Tensor(compute.BF16, rows, size[1]), b.Tensor(compute.F32, rows, size[1])
				b.Linear(got, x, w, bias, act)
				b.plainLinear(want, x, w.(*matrix), bias, act)
				if d := distance(b.floats(got), b.floats(want)); !(d < 4e-3) {
					t.Errorf("%v by %v rows, activation %d: off by %.2g", size, rows, act, d)
				}
			}
		}
		b.Arena.Free()
		b.Arena, _ = b.NewArena(0)
	}
}

func TestReplayedGraphsGiveTheSameBytes(t *testing.T) {
	b := newBench(t)
	x, y, w := b.normal(1, compute.F32, 300, 256), b.Tensor(compute.BF16, 300, 256), b.weight(256, 256)
	bias, sum := b.normal(1, compute.F32, 256), b.Tensor(compute.F32, 300, 256)
	dst := b.Tensor(compute.BF16, 4, 300, 64)
	run := func() {
		b.Norm(y, x, compute.Norm{Eps: 1e-6})
		b.Linear(sum, y, w, bias, compute.GELU)
		b.Linear(y, sum, w, bias, compute.SiLU)
		b.Attend(dst, y.Heads(4), y.Heads(4), y.Heads(4), compute.Attention{Scale: 0.125})
		b.AddGated(sum, x, sum, compute.Tensor{})
	}
	all := func() []byte {
		p, q := make([]byte, dst.Bytes()), make([]byte, sum.Bytes())
		b.Download(p, dst)
		b.Download(q, sum)
		return append(p, q...)
	}
	run()
	want := all()
	g, err := b.Capture(run)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for range 3 {
		b.Mix(dst, 0, dst, 0, compute.Tensor{})
		b.Mix(sum, 0, sum, 0, compute.Tensor{})
		b.Replay(g)
		if got := all(); !bytes.Equal(got, want) {
			t.Error("replay gave other bytes")
		}
	}
	b.Upload(x.Index(0), make([]byte, 1024))
	if b.Replay(g); bytes.Equal(all(), want) {
		t.Error("a replay does not see new inputs")
	}
	if _, err := b.Capture(func() { b.Upload(x.Index(0), make([]byte, 1024)) }); !errors.Is(err, errRecording) || b.queue.Err() != nil {
		t.Errorf("upload inside a capture: %v; queue %v", err, b.queue.Err())
	}
	run()
	if err := b.Wait(); err != nil {
		t.Error(err)
	}
}

func TestIndicesOutOfRangeFailTheQueueNotTheDevice(t *testing.T) {
	b := newBench(t)
	for name, run := range map[string]func(q *queue){
		"an index lies outside": func(q *queue) {
			q.Gather(b.Tensor(compute.F32, 3, 16), b.Tensor(compute.F32, 5, 16), b.ints(1, 5, -1), false)
		},
		"a row or column position": func(q *queue) {
			x := b.Tensor(compute.F32, 2, 1, 16)
			q.Rope(x, x, b.ints(0, 9, 0).Reshape(1, 3), compute.Rope{Row: b.Tensor(compute.F32, 9, 8, 2)})
		},
		"a tile list": func(q *queue) {
			x := b.Tensor(compute.F32, 1, 10, 16)
			q.Attend(x, x, x, x, compute.Attention{Scale: 1, Tiles: compute.Tiles{QueryTile: 16, KeyTile: 4, Keys: b.ints(0, 3), Ends: b.ints(2)}})
		},
	} {
		opened, err := b.NewQueue()
		if err != nil {
			t.Fatal(err)
		}
		run(opened.(*queue))
		if err := b.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := opened.Wait(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		opened.Close()
	}
	x := b.normal(1, compute.F32, 4, 4)
	if b.floats(x); b.queue.Err() != nil {
		t.Errorf("the device suffered: %v", b.queue.Err())
	}
}

func TestGPUMemoryRunsOutAndComesBack(t *testing.T) {
	b := newBench(t)
	m := b.Memory()
	if _, err := b.NewArena(m.Free + 1<<30); !errors.Is(err, compute.ErrNoMemory) {
		t.Errorf("more than is free: %v", err)
	}
	if _, err := b.NewArena(1 << 60); !errors.Is(err, compute.ErrNoMemory) {
		t.Errorf("absurd: %v", err)
	}
	most, err := b.NewArena(m.Free - 2<<30)
	if err != nil {
		t.Fatal(err)
	}
	rest, _ := b.NewArena(0)
	for !rest.Tensor(compute.U8, 1<<29).IsZero() {
	}
	if !errors.Is(rest.Err(), compute.ErrNoMemory) {
		t.Errorf("growing past the end: %v", rest.Err())
	}
	rest.Free()
	most.Free()
	if again := b.Memory(); again.Used != m.Used || again.Free < m.Free-64<<20 {
		t.Errorf("before %+v, after %+v", m, again)
	}
	x := b.normal(1, compute.F32, 1000)
	if v := b.floats(x); v[0] == v[1] {
		t.Error("no work after running out of memory")
	}
}

func TestQueuesMayMoveBetweenThreads(t *testing.T) {
	b := newBench(t)
	x := b.normal(1, compute.F32, 64, 64)
	want := b.floats(x)
	for range 50 { // one after the other, each on a goroutine and often a thread of its own
		var wg sync.WaitGroup
		wg.Go(func() {
			b.Mix(x, -1, x, 0, compute.Tensor{})
			b.Mix(x, -1, x, 0, compute.Tensor{})
		})
		wg.Wait()
	}
	if d := distance(b.floats(x), want); d != 0 {
		t.Errorf("off by %v", d)
	}
	var all sync.WaitGroup
	for i := range 8 { // at once, each with its own queue
		all.Go(func() {
			q, err := b.NewQueue()
			if err != nil {
				t.Error(err)
				return
			}
			defer q.Close()
			a, _ := b.NewArena(1 << 20)
			defer a.Free()
			y, raw := a.Tensor(compute.F32, 1000), make([]byte, 4000)
			ones := bytes.Repeat([]byte{0, 0, 0x80, 0x3f}, 1000)
			for range 100 {
				q.Upload(y, ones)
				q.Mix(y, float32(i), y, 1, y)
				q.Download(raw, y)
			}
			if v := math.Float32frombits(binary.LittleEndian.Uint32(raw[3996:])); q.Err() != nil || v != float32(i+1) {
				t.Errorf("queue %d: %v, %v", i, v, q.Err())
			}
		})
	}
	all.Wait()
}

// TestKernelResources reports registers, and fails on spills.
func TestKernelResources(t *testing.T) {
	b := newBench(t)
	for _, f := range b.kernels.files() {
		for i, name := range f.functions {
			r, local := b.Device.drv.Registers(f.to[i])
			t.Logf("%-16s %3d registers, %d bytes of local memory", name, r, local)
			if local > 0 && f.name != "timeembed" && f.name != "merge" { // sines of large double angles need a table
				t.Errorf("%s spills", name)
			}
		}
	}
	for dim := 16; dim <= 128; dim += 16 {
		fns, shared, err := b.attendKernels(dim, false)
		if err != nil {
			t.Fatal(err)
		}
		r, local := b.Device.drv.Registers(fns[0])
		t.Logf("attendany %-6d %3d registers, %d bytes of local memory, %d of shared memory", dim, r, local, shared)
	}
}

func TestSecondStartTakesKernelsFromDisk(t *testing.T) {
	openForTest(t).Close()
	dir := t.TempDir()
	for start := range 2 {
		var lines []string
		from := time.Now()
		d, err := New(Options{CacheDir: dir, Progress: func(l string) { lines = append(lines, l) }})
		if err != nil || (len(lines) > 0) != (start == 0) {
			t.Fatalf("start %d: %v; said %q", start, err, lines)
		}
		opened := time.Since(from)
		from = time.Now()
		if _, err := d.attendModule(attendVariant{headDim: 128, blockKeys: 160}); err != nil {
			t.Error(err)
		}
		t.Logf("start %d: device %v, attention variant %v", start, opened, time.Since(from))
		d.Close()
	}
	info, err := Probe()
	if err != nil || len(info.GPUs) == 0 || info.Compiler == "" || len(info.Libraries) != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	t.Logf("%+v", info)
}

var _ io.Closer = (*graph)(nil)

func TestTheSelfTestPasses(t *testing.T) {
	d := openForTest(t)
	defer d.Close()
	start := time.Now()
	for _, c := range d.SelfTest() {
		t.Logf("%+v", c)
		if c.Error != "" {
			t.Errorf("%s: %s", c.Name, c.Error)
		}
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}
