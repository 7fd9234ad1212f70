package weights

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"longtake/compute"
)

// FuzzParse asks three things of any bytes: no panic; an error that is one line of type FormatError; and if there is no
// error, that every tensor has the bytes of its shape and the file survives writing and reading.
func FuzzParse(f *testing.F) {
	f.Add(raw(`{}`, nil))
	f.Add(raw(`{"a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"__metadata__":{"k":"v"}}`, make([]byte, 4)))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			var bad *FormatError
			if !errors.As(err, &bad) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error %q", err)
			}
			return
		}
		total, tensors := 0, make(map[string]compute.Host)
		for _, name := range file.Names() {
			h, err := file.Tensor(name)
			if errors.Is(err, compute.ErrUnsupported) {
				return
			}
			if err != nil || len(h.Data) != h.Elems()*h.DType.Size() {
				t.Fatalf("%q: %v%v with %d bytes, %v", name, h.DType, h.Shape, len(h.Data), err)
			}
			tensors[name] = h
			total += len(h.Data)
		}
		if total > len(data) {
			t.Fatalf("%d bytes of tensors in a file of %d", total, len(data))
		}
		if err := file.Check(); err != nil && !errors.As(err, new(*FormatError)) {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Write(&out, tensors, file.Metadata()); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out.Bytes())
		if err != nil {
			t.Fatalf("written file: %v", err)
		}
		for name, want := range tensors {
			if got, err := again.Tensor(name); err != nil || !bytes.Equal(got.Data, want.Data) {
				t.Fatalf("%q changed: %v", name, err)
			}
		}
	})
}
