package computetest

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"longtake/compute"
)

// Bound is how far results may be from the truth.
type Bound struct {
	Relative float64 // Euclidean norm of the difference over the norm of the truth
	MaxAbs   float64 // largest difference of an element, in units of the largest element of the truth, or of 1 if that is less
}

// Tolerance has a bound for every group of operations.
type Tolerance struct {
	F32       Bound // everything but Linear and Attend, with F32 results
	BF16      Bound // anything with BF16 results, on top of its group
	Linear    Bound // Linear with F32 results
	Attention Bound // Attend with F32 results
}

// Presets: F32 for kernel classes that compute in float32 throughout, BF16 for those that round the operands of matrix
// products and attention to bfloat16.
var (
	F32 = Tolerance{
		F32: Bound{1e-5, 5e-5}, BF16: Bound{1e-2, 2e-2}, Linear: Bound{1e-5, 5e-5}, Attention: Bound{1e-5, 5e-5},
	}
	BF16 = Tolerance{
		F32: Bound{1e-5, 5e-5}, BF16: Bound{1e-2, 2e-2}, Linear: Bound{1e-2, 3e-2}, Attention: Bound{1e-2, 3e-2},
	}
)

// seedVariable repeats a run.
const seedVariable = "LONGTAKE_TEST_SEED"

// exams are all parts of the suite.
var exams = []struct {
	name string
	run  func(*suite)
}{
	{"device", examDevice},
	{"arena", examArena},
	{"upload and download", examTransfer},
	{"copy", examCopy},
	{"linear", examLinear},
	{"linear laws", examLinearLaws},
	{"norm", examNorm},
	{"norm laws", examNormLaws},
	{"rope", examRope},
	{"rope laws", examRopeLaws},
	{"add gated", examAddGated},
	{"activate", examActivate},
	{"gather", examGather},
	{"time embed", examTimeEmbed},
	{"noise", examNoise},
	{"mix", examMix},
	{"clamp", examClamp},
	{"attend", examAttend},
	{"attend chosen at random", examAttendRandom},
	{"attend extremes", examAttendExtremes},
	{"attend laws", examAttendLaws},
	{"attend merged counts", examAttendCounts},
	{"match", examMatch},
	{"vectors", examVectors},
	{"add norm", examAddNorm},
	{"norm rope", examNormRope},
	{"attend biased", examBiased},
	{"batch", examBatch},
	{"follow", examFollow},
	{"nothing to do", examEmpty},
	{"same bytes again", examRepeat},
	{"wrong shapes panic", examPanics},
	{"wrong attention shapes panic", examAttendPanics},
	{"first failure stays", examSticky},
}

// Run examines the device that open returns, and closes it at the end. A queue may have a method Fail(error) that makes it
// behave as if the device had failed; the stickiness of failures is examined only then. With -short fewer sizes are tried.
func Run(t *testing.T, open func(t *testing.T) compute.Device, tol Tolerance) {
	dev, seed := open(t), newSeed(t)
	for _, e := range exams {
		t.Run(e.name, func(t *testing.T) { examine(t, dev, tol, seed, e.name, e.run) })
	}
	if err := dev.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func newSeed(t testing.TB) uint64 {
	text, set := os.LookupEnv(seedVariable)
	if !set {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is not a number", seedVariable, text)
	}
	return seed
}

// examine runs one exam with a queue, an arena and random numbers of its own.
func examine(t testing.TB, dev compute.Device, tol Tolerance, seed uint64, name string, exam func(*suite)) {
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatalf("new queue: %v", err)
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	s := &suite{TB: t, dev: dev, dq: dq, tol: tol, rng: rand.New(rand.NewPCG(seed, h.Sum64()))}
	defer func() {
		if s.arena != nil {
			s.arena.Free()
		}
		dq.Close()
		if t.Failed() {
			t.Logf("%s; repeat with %s=%d", dev.Name(), seedVariable, seed)
		}
	}()
	exam(s)
	if err := dq.Wait(); err != nil && name != stickyName {
		t.Errorf("the queue failed: %v", err)
	}
}

// stickyName is the exam that leaves a failed queue behind.
const stickyName = "first failure stays"
