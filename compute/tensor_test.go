package compute

import "testing"

func TestViewsDoNotAllocate(t *testing.T) {
	x := NewTensor(nil, 0, F32, 4, 6, 8)
	var sum int
	if n := testing.AllocsPerRun(100, func() {
		v := x.Reshape(24, 8).Heads(2).Slice(1, 3, 9).Index(1)
		sum += v.Elems() + NewTensor(nil, 0, BF16, 3, 4).Dim(-1)
	}); n != 0 {
		t.Errorf("views allocate %v times", n)
	}
}
