package weights

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// most returns by how much the heap grows at most while f runs, as seen every fraction of a millisecond by a collector that is kept busy.
func most(f func()) (bytes int64) {
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	runtime.GC()
	look := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := look()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		select {
		case <-done:
			return max(bytes, look()-before)
		default:
			bytes = max(bytes, look()-before)
			time.Sleep(200 * time.Microsecond)
		}
	}
}

// zipped is a torch archive around a pickle and a storage that inflates to so many bytes.
func zipped(t *testing.T, program []byte, inflated int) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, 9) })
	for _, m := range []struct {
		name   string
		method uint16
		data   []byte
	}{{"archive/data.pkl", zip.Store, program}, {"archive/data/0", zip.Deflate, make([]byte, inflated)}, {"archive/version", zip.Store, []byte("3\n")}} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: m.name, Method: m.method})
		if err == nil {
			_, err = w.Write(m.data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestHostileFilesTakeLittleMemory: whatever a file promises, reading it takes at most twice its size and 64 MiB.
func TestHostileFilesTakeLittleMemory(t *testing.T) {
	long := func(op byte, size int, n uint64) []byte {
		b := binary.LittleEndian.AppendUint64(nil, n)
		return append(append([]byte("\x80\x02"), op), b[:size]...)
	}
	nested, err := os.ReadFile("testdata/torch/nested.pt")
	if err != nil {
		t.Fatal(err)
	}
	var many strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&many, `"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},`, i)
	}
	doubling := append([]byte("\x80\x02]q\x00"), bytes.Repeat([]byte("(h\x00h\x00lq\x00"), 60)...) // lists of lists of lists
	for name, file := range map[string][]byte{
		"header of 2^60 bytes":    binary.LittleEndian.AppendUint64(nil, 1<<60),
		"header of 90 MB, absent": append(binary.LittleEndian.AppendUint64(nil, 90<<20), '{'),
		"shape of 2^62":           raw(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}`, make([]byte, 4)),
		"deep metadata":           raw(`{"__metadata__":`+strings.Repeat(`{"a":`, 100_000)+"1"+strings.Repeat("}", 100_001), nil),
		"50,000 tensors":          raw("{"+strings.TrimSuffix(many.String(), ",")+"}", nil),
		"text of 4 GB":            zipped(t, long('X', 4, 0xfffffff0), 10),
		"text of 2^60 bytes":      zipped(t, long(0x8d, 8, 1<<60), 10),
		"number of 2 GB":          zipped(t, long(0x8b, 4, 0x7fffffff), 10),
		"memo 2^31":               zipped(t, long('r', 4, 0x7fffffff), 10),
		"marks":                   zipped(t, bytes.Repeat([]byte("("), 1<<20), 10),
		"doubling lists":          zipped(t, doubling, 10),
		"storage that inflates":   zipped(t, []byte("\x80\x02}."), 200<<20),
		"whole":                   nested,
	} {
		for reader, read := range map[string]func() (*File, error){
			"safetensors": func() (*File, error) { return Parse(file) }, "torch": func() (*File, error) { return parseTorch(name, file) },
			"index": func() (*File, error) { parseIndex(file); return nil, errors.New("no file") },
		} {
			got := most(func() {
				if f, err := read(); err == nil {
					_ = f.Check()
				}
			})
			if bound := int64(2*len(file) + 64<<20); got > bound {
				t.Errorf("%s: %d bytes taken by the reader of %s for a file of %d", name, got, reader, len(file))
			}
		}
	}
}
