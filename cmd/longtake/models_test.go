package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// safetensors builds a file of one float32 tensor.
func safetensors(values ...uint32) []byte {
	header := fmt.Sprintf(`{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1,%d],"data_offsets":[0,%d]}}`, len(values), 4*len(values))
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func TestInspectListsTensorsAndRefusesDamagedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.safetensors")
	inspect := func(data []byte, more ...string) result {
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		return longtake(t, append([]string{"models", "inspect", path}, more...)...)
	}
	good := safetensors(0x3f800000, 0x40000000)
	info := parse[fileInfo](t, inspect(good, "--json").out)
	if info.Parameters != 2 || info.Bytes != 8 || len(info.Tensors) != 1 || info.Tensors[0].Name != "w" || info.Metadata["format"] != "pt" {
		t.Errorf("found %+v", info)
	}
	if r := inspect(good); r.code != exitDone || !strings.Contains(r.out, "1 tensors, 2 parameters") {
		t.Errorf("said %q", r.out)
	}
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"truncated":       {good[:len(good)-3], "truncated"},
		"cut header":      {good[:20], "truncated"},
		"NaN":             {safetensors(0x3f800000, 0x7fc00000), "not a finite number"},
		"trailing bytes":  {append(good[:len(good):len(good)], 1, 2), "belong to no tensor"},
		"an archive":      {[]byte("PK\x03\x04 and so on"), "zip archive"},
		"an empty file":   {nil, "too few"},
		"not safetensors": {[]byte("hello, this is no weight file at all"), "not a safetensors file"},
	} {
		r := inspect(c.data)
		if r.code != exitUsage || !strings.Contains(r.err, c.want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", what, r.code, r.err)
		}
	}
}
