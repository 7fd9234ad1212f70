package model

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longtake/compute/cpu"
)

func TestADamagedWeightFileIsOneClearLine(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Kernel: "generic", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	header := int(binary.LittleEndian.Uint64(tinyWeights))
	edit := func(f func(b []byte) []byte) []byte { return f(append([]byte(nil), tinyWeights...)) }
	for name, c := range map[string]struct {
		file, config []byte
		want         string
	}{
		"whole":             {tinyWeights, nil, ""},
		"truncated":         {tinyWeights[:len(tinyWeights)/2], nil, "truncated"},
		"not weights":       {[]byte("<!doctype html><html>"), nil, "not a safetensors file"},
		"empty":             {nil, nil, ""},
		"not a number":      {edit(func(b []byte) []byte { b[len(b)-1], b[len(b)-2] = 0x7f, 0xc0; return b }), nil, "not a finite number"},
		"missing tensor":    {edit(func(b []byte) []byte { return rename(b, header, `"time1.bias"`, `"time9.bias"`) }), nil, "time1.bias"},
		"other width":       {tinyWeights, []byte(strings.Replace(string(tinyConfig), `"ffn": 1024`, `"ffn": 1000`, 1)), "want"},
		"impossible config": {tinyWeights, []byte(strings.Replace(string(tinyConfig), `"heads": 4`, `"heads": 3`, 1)), "head"},
		"no config":         {tinyWeights, []byte("{"), "configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "w.safetensors")
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.config != nil {
				if err := os.WriteFile(filepath.Join(dir, "config.json"), c.config, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			e, err := OpenWorld(dev, path)
			switch {
			case name == "whole":
				if err != nil {
					t.Fatal(err)
				}
				e.Close()
			case err == nil:
				t.Error("was accepted")
			case strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), c.want):
				t.Errorf("error %q, want one line with %q", err, c.want)
			}
		})
	}
}

func rename(b []byte, header int, from, to string) []byte {
	h := strings.Replace(string(b[8:8+header]), from, to, 1)
	return append(append(b[:8:8], h...), b[8+header:]...)
}
