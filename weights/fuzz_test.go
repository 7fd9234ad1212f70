package weights

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"longtake/compute"
)

// FuzzParse asks three things of any bytes: no panic; an error that is one line of type FormatError; and if there is no
// error, that every tensor has the bytes of its shape and the file survives writing and reading.
func FuzzParse(f *testing.F) {
	f.Add(raw(`{}`, nil))
	f.Add(raw(`{"a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"__metadata__":{"k":"v"}}`, make([]byte, 4)))
	f.Add(raw(`{"encoder.block.0.layer.0.SelfAttention.q.weight":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"shared.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, make([]byte, 8)))
	f.Add(raw(`{"decoder.up_blocks.0.resnets.0.norm1.gamma":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"decoder.up_blocks.99999999999999999999.resnets.x":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}`, make([]byte, 4)))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			var bad *FormatError
			if !errors.As(err, &bad) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error %q", err)
			}
			return
		}
		if named, err := Official(file); err == nil {
			for _, name := range named.Names() {
				if _, err := named.Tensor(name); err != nil && !errors.Is(err, compute.ErrUnsupported) {
					t.Fatalf("%q as %q: %v", name, named.Path(), err)
				}
			}
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

// FuzzIndex reads anything as an index of shards: files lie beside it, or there is a problem with words for it.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":4},"weight_map":{"a":"model-00001-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../b.safetensors","a":"c"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		where, _, p := parseIndex(data)
		if p != nil {
			if p.what == "" || strings.ContainsAny(p.what, "\n\r") {
				t.Fatalf("%+v", p)
			}
			return
		}
		for tensor, name := range where {
			if filepath.Base(name) != name || !filepath.IsLocal(name) {
				t.Fatalf("tensor %q lies in %q", tensor, name)
			}
		}
	})
}
