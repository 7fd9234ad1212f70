package weights

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
)

const tinyworld = "../model/tinyworld/tinyworld.safetensors"

// raw builds a file from a header as written and element bytes.
func raw(header string, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

// The expected values were printed by a Python program that reads the file with json, struct and math.fsum alone:
// number of tensors and elements, SHA-256 over sorted names and bytes, and sum, sum of squares and first elements of one.
func TestTheEmbeddedModelReadsAsPythonReadsIt(t *testing.T) {
	f, err := Open(tinyworld)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := f.Hash(); got != "e3092c0959676c51aac589651cd9d9d6bc06907d0654a7329d3a9e60e8e235fd" {
		t.Errorf("hash of the file: %s", got)
	}
	all, elems := sha256.New(), 0
	for _, name := range f.Names() {
		h, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		if h.DType != compute.BF16 {
			t.Errorf("%s is %v, want bf16", name, h.DType)
		}
		all.Write([]byte(name))
		all.Write(h.Data)
		elems += h.Elems()
	}
	if got := fmt.Sprintf("%x", all.Sum(nil)); len(f.Names()) != 234 || elems != 7669696 || got != "879323ee00c5cd92d4234ff781c2b98132e6b4970a4ddf7e7c7ea5ef8239daba" {
		t.Errorf("%d tensors, %d elements, checksum %s", len(f.Names()), elems, got)
	}
	h, err := f.Tensor("act_e")
	if err != nil {
		t.Fatal(err)
	}
	x, err := Floats(h)
	if err != nil {
		t.Fatal(err)
	}
	var sum, squares float64
	for _, v := range x {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	if !slices.Equal(h.Shape, []int{9, 256}) || !slices.Equal(x[:3], []float32{-0.033447265625, -0.017578125, -0.0281982421875}) ||
		math.Abs(sum-3.9028361439704895) > 1e-12 || math.Abs(squares-7.024514376099095) > 1e-12 {
		t.Errorf("act_e %v: starts %v, sum %v, squares %v", h.Shape, x[:3], sum, squares)
	}
	if err := f.Check(); err != nil {
		t.Errorf("check: %v", err)
	}
}

// hostile is a file that must be refused with a message that contains want.
type hostile struct {
	name string
	data []byte
	want string
}

func hostiles() []hostile {
	entry := func(typ, shape, offsets string) string {
		return fmt.Sprintf(`{"a":{"dtype":%q,"shape":%s,"data_offsets":%s}}`, typ, shape, offsets)
	}
	two := func(a, b string) string {
		return fmt.Sprintf(`{"a":{"dtype":"U8","shape":[4],"data_offsets":%s},"b":{"dtype":"U8","shape":[4],"data_offsets":%s}}`, a, b)
	}
	length := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), "{}"...) }
	eight := make([]byte, 8)
	return []hostile{
		{"empty", nil, "0 bytes are too few"},
		{"seven bytes", eight[:7], "7 bytes are too few"},
		{"header longer than the file", length(3), "truncated: the header needs 3 bytes, the file has 2"},
		{"header length just over the bound", length(headerMax + 1), "header of 100000001 bytes"},
		{"header length with the top bit", length(1 << 63), "header of 9223372036854775808 bytes"},
		{"header length minus one", length(math.MaxUint64), "header of 18446744073709551615 bytes"},
		{"header length 0", eight, "not the JSON"},
		{"array", raw(`[]`, nil), "not the JSON"},
		{"half an object", raw(`{"a":`, nil), "not the JSON"},
		{"two objects", raw(`{}{}`, nil), "closing brace"},
		{"bad UTF-8", raw("{\"a\xff\":1}", nil), "UTF-8"},
		{"deep nesting", raw(`{"a":`+strings.Repeat("[", 100000)+strings.Repeat("]", 100000)+`}`, nil), "not the JSON"},
		{"deep nesting in a shape", raw(entry("U8", strings.Repeat("[", 50000)+strings.Repeat("]", 50000), "[0,0]"), nil), "whole numbers"},
		{"tensor that is a number", raw(`{"a":3}`, nil), "not the JSON"},
		{"duplicate name", raw(`{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}`, eight), `tensor "a": listed twice`},
		{"duplicate name, escaped", raw(`{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}`, eight), `tensor "a": listed twice`},
		{"duplicate field", raw(`{"a":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}}`, eight), "given twice"},
		{"duplicate metadata", raw(`{"__metadata__":{"k":"1","k":"2"}}`, nil), "listed twice"},
		{"metadata twice", raw(`{"__metadata__":{},"__metadata__":{}}`, nil), "listed twice"},
		{"metadata of numbers", raw(`{"__metadata__":{"k":1}}`, nil), "want a string"},
		{"missing field", raw(`{"a":{"dtype":"U8","shape":[8]}}`, eight), "is missing"},
		{"unknown field", raw(`{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1}}`, eight), "unknown field"},
		{"negative dimension", raw(entry("U8", "[-8]", "[0,8]"), eight), "whole numbers"},
		{"fractional dimension", raw(entry("U8", "[8.0]", "[0,8]"), eight), "whole numbers"},
		{"exponent", raw(entry("U8", "[8e0]", "[0,8]"), eight), "whole numbers"},
		{"minus zero", raw(entry("U8", "[-0]", "[0,0]"), nil), "whole numbers"},
		{"dimension of 64 bits", raw(entry("U8", "[18446744073709551615]", "[0,8]"), eight), "whole numbers"},
		{"shape that overflows to 8", raw(entry("U8", "[4294967298,4294967298,2]", "[0,8]"), eight), "overflows"},
		{"bytes that overflow to 0", raw(entry("F32", "[4611686018427387904]", "[0,0]"), nil), "overflows"},
		{"overflow before a zero", raw(entry("F32", "[4611686018427387904,4611686018427387904,0]", "[0,0]"), nil), "overflows"},
		{"rank 9", raw(entry("U8", "[1,1,1,1,1,1,1,1,8]", "[0,8]"), eight), "more than 8"},
		{"negative offset", raw(entry("U8", "[8]", "[-8,0]"), eight), "whole numbers"},
		{"one offset", raw(entry("U8", "[8]", "[8]"), eight), "want 2"},
		{"three offsets", raw(entry("U8", "[8]", "[0,8,8]"), eight), "more than 2"},
		{"backward offsets", raw(entry("U8", "[8]", "[8,0]"), eight), "backwards"},
		{"truncated data", raw(entry("F32", "[4]", "[0,16]"), eight), `tensor "a": truncated: its data ends at byte 16, the file has 8`},
		{"span too small", raw(entry("F32", "[4]", "[0,8]"), eight), "span 8 bytes, F32[4] needs 16"},
		{"span too large", raw(entry("U8", "[4]", "[0,8]"), eight), "span 8 bytes, U8[4] needs 4"},
		{"unknown type", raw(entry("Q7", "[8]", "[0,8]"), eight), "unknown element type"},
		{"half a byte", raw(entry("F4", "[3]", "[0,1]"), eight[:1]), "whole byte"},
		{"trailing bytes", raw(entry("U8", "[4]", "[0,4]"), eight), "4 bytes after the last tensor"},
		{"data without tensors", raw(`{}`, eight), "8 bytes after the last tensor"},
		{"overlap", raw(two("[0,4]", "[2,6]"), eight[:6]), `tensor "b": data offsets [2 6] overlap those of "a"`},
		{"the same bytes twice", raw(two("[0,4]", "[0,4]"), eight[:4]), "overlap"},
		{"hole", raw(two("[0,4]", "[5,9]"), make([]byte, 9)), "bytes 4 to 5"},
		{"hole at the start", raw(entry("U8", "[4]", "[4,8]"), eight), "bytes 0 to 4"},
		{"Git LFS pointer", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"},
		{"zip", []byte("PK\x03\x04aaaaaaaaaaaaaa"), "PyTorch"},
		{"pickle", []byte("\x80\x02}q\x00(X\x05\x00aaaaaaaa"), "pickle"},
		{"web page", []byte("<!DOCTYPE html><html>"), "web page"},
	}
}

func TestHostileFilesAreOneClearLine(t *testing.T) {
	for _, c := range hostiles() {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.safetensors")
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path)
			var bad *FormatError
			if !errors.As(err, &bad) {
				t.Fatalf("got %v, want a FormatError", err)
			}
			line := err.Error()
			if !strings.Contains(line, c.want) || !strings.Contains(line, path) || bad.Todo == "" || strings.ContainsAny(line, "\n\r") || len(line) > 600 {
				t.Errorf("message %q, want one line with %q, the path and what to do", line, c.want)
			}
			if _, err := Parse(c.data); err == nil || !strings.Contains(err.Error(), "weights in memory") {
				t.Errorf("Parse: %v", err)
			}
		})
	}
}

func TestUnusualButValidFiles(t *testing.T) {
	header := `{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}, "z":{"shape":[0,5],"dtype":"BF16","data_offsets":[4,4]},` +
		`"r":{"dtype":"BOOL","shape":[1,1,1,1,2],"data_offsets":[4,6]},"i8":{"dtype":"I8","shape":[3],"data_offsets":[6,9]},"__metadata__":{"by":"test"}}   ` + "\n"
	f, err := Parse(raw(header, []byte{0, 0, 128, 63, 1, 0, 7, 8, 9}))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := f.Tensor("s"); err != nil || len(s.Shape) != 0 || s.Elems() != 1 || s.DType != compute.F32 {
		t.Errorf("scalar: %+v, %v", s, err)
	}
	if z, err := f.Tensor("z"); err != nil || z.Elems() != 0 || len(z.Data) != 0 {
		t.Errorf("empty: %+v, %v", z, err)
	}
	if r, err := f.Tensor("r"); err != nil || r.DType != compute.U8 || len(r.Shape) != 5 {
		t.Errorf("rank 5: %+v, %v", r, err)
	}
	if _, err := f.Tensor("i8"); !errors.Is(err, compute.ErrUnsupported) {
		t.Errorf("i8: %v", err)
	}
	if _, err := f.Tensor("nosuch"); !errors.Is(err, ErrMissing) {
		t.Errorf("missing: %v", err)
	}
	if err := f.Check(); err != nil {
		t.Errorf("check: %v", err)
	}
	if f.Metadata()["by"] != "test" || !slices.Equal(f.Names(), []string{"i8", "r", "s", "z"}) {
		t.Errorf("metadata %v, names %v", f.Metadata(), f.Names())
	}
}

func TestParseDoesNotCopy(t *testing.T) {
	data := raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, []byte{1, 2})
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.Tensor("a")
	if err != nil || &h.Data[0] != &data[len(data)-2] {
		t.Errorf("the tensor does not point into the file (%v)", err)
	}
	if cap(h.Data) != 2 {
		t.Errorf("capacity %d reaches beyond the tensor", cap(h.Data))
	}
}

func TestCheckFindsEveryKindOfNotANumber(t *testing.T) {
	for _, c := range []struct {
		dt   compute.DType
		good []uint64
		bad  []uint64
	}{
		{compute.F32, []uint64{0x7f7fffff, 0xff7fffff, 1, 0}, []uint64{0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001}},
		{compute.BF16, []uint64{0x7f7f, 0xff7f, 0x8000}, []uint64{0x7f80, 0xff80, 0x7fc0, 0xffff}},
		{compute.F16, []uint64{0x7bff, 0xfbff}, []uint64{0x7c00, 0xfc00, 0x7e00}},
		{compute.F64, []uint64{0x7fefffffffffffff, 0xffefffffffffffff}, []uint64{0x7ff0000000000000, 0xfff8000000000000}},
		{compute.F8E5M2, []uint64{0x7b, 0xfb}, []uint64{0x7c, 0xfc, 0x7f}},
		{compute.F8E4M3, []uint64{0x7e, 0xfe}, []uint64{0x7f, 0xff}},
	} {
		for at := range 13 {
			for _, bad := range c.bad {
				var data []byte
				for i := range 13 {
					word := binary.LittleEndian.AppendUint64(nil, c.good[i%len(c.good)])
					if i == at {
						word = binary.LittleEndian.AppendUint64(nil, bad)
					}
					data = append(data, word[:c.dt.Size()]...)
				}
				if got := firstNotFinite(compute.Host{DType: c.dt, Shape: []int{13}, Data: data}); got != at {
					t.Errorf("%v: %#x at element %d found at %d", c.dt, bad, at, got)
				}
			}
		}
	}
	f, err := Parse(raw(`{"w":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}`, []byte{0, 0, 0, 0, 0x80, 0x7f}))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Check("w"); err == nil || !strings.Contains(err.Error(), `tensor "w": element 2 of BF16[3] is not a finite number`) {
		t.Errorf("check: %v", err)
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	tensors := map[string]compute.Host{
		"b.weight": {DType: compute.BF16, Shape: []int{1, 3}, Data: []byte{1, 2, 3, 4, 5, 6}},
		"a":        {DType: compute.U8, Shape: []int{3}, Data: []byte{7, 8, 9}},
		"\"é\n":    {DType: compute.F32, Data: []byte{0, 0, 0, 1}},
		"none":     {DType: compute.F64, Shape: []int{0}},
	}
	var first, second bytes.Buffer
	if err := Write(&first, tensors, map[string]string{"k": "v", "a": "b"}); err != nil {
		t.Fatal(err)
	}
	if err := Write(&second, maps.Clone(tensors), map[string]string{"a": "b", "k": "v"}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same tensors gave different bytes")
	}
	if n := binary.LittleEndian.Uint64(first.Bytes()); n%8 != 0 {
		t.Errorf("header of %d bytes leaves the elements unaligned", n)
	}
	f, err := Parse(first.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range tensors {
		got, err := f.Tensor(name)
		if err != nil || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%q: got %+v, %v", name, got, err)
		}
	}
	if !maps.Equal(f.Metadata(), map[string]string{"k": "v", "a": "b"}) {
		t.Errorf("metadata %v", f.Metadata())
	}
	if err := Write(&first, map[string]compute.Host{"x": {DType: compute.F32, Shape: []int{2}, Data: make([]byte, 4)}}, nil); err == nil {
		t.Error("a tensor with too few bytes was written")
	}
}

func TestWriteFileLeavesNothingBehindWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "w.safetensors")
	if err := WriteFile(path, map[string]compute.Host{"x": {DType: compute.F32, Shape: []int{2}}}, nil); err == nil {
		t.Error("no error")
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
	if err := WriteFile(path, map[string]compute.Host{"x": {DType: compute.U8, Shape: []int{2}, Data: []byte{1, 2}}}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	if want := fmt.Sprintf("%x", sha256.Sum256(b)); f.Hash() != want {
		t.Errorf("hash %s, want %s", f.Hash(), want)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}
