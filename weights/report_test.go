package weights

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"longtake/compute"
)

func write(t testing.TB, tensors map[string]compute.Host) *File {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, tensors, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOneErrorListsEverythingWrong(t *testing.T) {
	four := compute.Host{DType: compute.F32, Shape: []int{2, 2}, Data: make([]byte, 16)}
	f := write(t, map[string]compute.Host{"good": four, "turned": four, "count": {DType: compute.U8, Shape: []int{1}, Data: []byte{1}},
		"left": four, "skipped.a": four, "skipped.b": four})
	a := NewAudit(f)
	if h, ok := a.Want("good", 2, 2); !ok || len(h.Data) != 16 {
		t.Errorf("good: %+v", h)
	}
	for range 2 { // asking twice is reported once
		a.Want("turned", 4)
		a.Want("count", 1)
		a.Want("gone", 1)
	}
	a.Skip("skipped.")
	err := a.Err()
	var r *Report
	if !errors.As(err, &r) || !errors.Is(err, ErrMissing) {
		t.Fatalf("got %v", err)
	}
	want := `load weights weights in memory: 1 missing ("gone"), 2 wrong ("turned" is f32[2 2] at byte 448, want float[4], "count" is u8[1] at byte 464, want float[1]), 1 unexpected ("left"); the file belongs to another model or version`
	if err.Error() != want {
		t.Errorf("got  %v\nwant %v", err, want)
	}
}

func TestALongReportIsShortened(t *testing.T) {
	a := NewAudit(write(t, nil))
	for i := range 20 {
		a.Want(fmt.Sprint(i), 1)
	}
	if err := a.Err(); !strings.Contains(err.Error(), `20 missing ("0", "1", "2", "3", "4", "5", "6", "7" and 12 more)`) {
		t.Errorf("%v", err)
	}
}

func TestNoReportWhenAllIsWell(t *testing.T) {
	f := write(t, map[string]compute.Host{"w": {DType: compute.BF16, Shape: []int{1}, Data: []byte{0, 0}}})
	a := NewAudit(f)
	if _, err := a.Tensor("w"); err != nil {
		t.Error(err)
	}
	if err := a.Err(); err != nil {
		t.Error(err)
	}
}

func ExampleParse() {
	var b bytes.Buffer
	w := compute.Host{DType: compute.BF16, Shape: []int{2}, Data: []byte{0x80, 0x3f, 0x00, 0xc0}}
	if err := Write(&b, map[string]compute.Host{"head.bias": w}, nil); err != nil {
		fmt.Println(err)
	}
	f, err := Parse(b.Bytes())
	if err != nil {
		fmt.Println(err)
		return
	}
	h, err := f.Tensor("head.bias")
	if err != nil {
		fmt.Println(err)
		return
	}
	x, err := Floats(h)
	fmt.Println(h.DType, h.Shape, x, err)
	_, err = Parse(b.Bytes()[:b.Len()-1])
	fmt.Println(err)
	// Output:
	// bf16 [2] [1 -2] <nil>
	// read weights weights in memory: tensor "head.bias": truncated: its data ends at byte 4, the file has 3; the file is damaged: download or copy it again
}

func ExampleNewAudit() {
	f, err := Parse([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	if err != nil {
		fmt.Println(err)
		return
	}
	a := NewAudit(f)
	a.Want("patch.weight", 256, 192)
	a.Want("patch.bias", 256)
	fmt.Println(a.Err())
	// Output:
	// load weights weights in memory: 2 missing ("patch.weight", "patch.bias"); the file belongs to another model or version
}
