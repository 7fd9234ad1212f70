package main

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longtake/internal/synth"
)

// edit changes a file of a set.
func edit(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o666); err != nil {
		t.Fatal(err)
	}
}

// archive is a zip of stored members, as torch.save makes them.
func archive(t testing.TB, members map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range members {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const (
	checkpoint = "checkpoints/self_forcing_dmd.pt"
	wanDir     = "wan_models/Wan2.1-T2V-1.3B/"
	textWeight = wanDir + "models_t5_umt5-xxl-enc-bf16.pth"
	vaeWeight  = wanDir + "Wan2.1_VAE.pth"
	spiece     = wanDir + "google/umt5-xxl/spiece.model"
)

// hostile are sets with something wrong, the flags, and what must be said.
var hostile = []struct {
	name   string
	set    func(*synth.Set)
	change func(t testing.TB, dir string)
	args   []string
	want   string
}{
	{"cut off", nil, func(t testing.TB, dir string) {
		edit(t, filepath.Join(dir, checkpoint), func(b []byte) []byte { return b[:len(b)/2] })
	}, nil, "not a zip archive of torch.save"},
	{"a web page", nil, func(t testing.TB, dir string) {
		edit(t, filepath.Join(dir, checkpoint), func([]byte) []byte { return []byte("<!DOCTYPE html><html>") })
	}, nil, "not a zip archive"},
	{"a pickle that runs a program", nil, func(t testing.TB, dir string) {
		edit(t, filepath.Join(dir, checkpoint), func([]byte) []byte {
			return archive(t, map[string]string{"archive/data.pkl": "\x80\x02cposix\nsystem\n(X\x10\x00\x00\x00touch /tmp/hackedtR.", "archive/version": "3\n"})
		})
	}, nil, "posix"},
	{"not a number", nil, func(t testing.TB, dir string) {
		edit(t, filepath.Join(dir, vaeWeight), func(b []byte) []byte {
			for i := len(b) / 2; i < len(b)/2+64; i++ {
				b[i] = 0xff
			}
			return b
		})
	}, nil, "is not a finite number (byte "},
	{"missing tensors", func(s *synth.Set) {
		s.Rename = func(n string) string { return "model." + strings.Replace(n, "norm3", "norm9", 1) }
	}, nil, nil, "blocks.0.norm3.bias"},
	{"other shapes", func(s *synth.Set) {
		swap := map[string]string{"blocks.1.ffn.0.weight": "blocks.1.ffn.2.weight", "blocks.1.ffn.2.weight": "blocks.1.ffn.0.weight"}
		s.Rename = func(n string) string { return "model." + cmp.Or(swap[n], n) }
	}, nil, nil, "is f32[96 160] at byte "},
	{"an image-to-video network", func(s *synth.Set) { s.Net.In = 36 }, nil, nil, "makes videos from an image: give one by --image"},
	{"a network of Wan-2.2", func(s *synth.Set) { s.Net.In = 48 }, nil, nil, "Wan-2.2"},
	{"a VAE as the network", nil, nil, []string{"--model", "DIR/" + vaeWeight}, "is a Wan-2.1 VAE; wanted is the network"},
	{"umT5 as the network", nil, nil, []string{"--model", "DIR/" + textWeight}, "is a umT5 text encoder"},
	{"the tiny VAE as the VAE", nil, nil, []string{"--vae-path", "DIR/taew2_1.pth"}, "is a tiny VAE"},
	{"a network as the text encoder", nil, nil, []string{"--text-path", "DIR/" + checkpoint}, "wanted is Wan's umT5 encoder"},
	{"a network as the adapter", nil, nil, []string{"--lora", "DIR/" + checkpoint}, "holds no pairs"},
	{"a text encoder of another width", func(s *synth.Set) { s.T5.Dim = 64 }, nil, nil, "belong to different models"},
	{"a tokenizer that is none", nil, func(t testing.TB, dir string) {
		edit(t, filepath.Join(dir, spiece), func([]byte) []byte { return bytes.Repeat([]byte{0xff}, 100) })
	}, nil, "sentencepiece"},
	{"no such dictionary", nil, nil, []string{"--weights-key", "critic"}, "no network under \"critic\""},
	{"another family's name", nil, nil, []string{"--family", "dreamer"}, "family \"dreamer\": known are"},
	{"an empty folder", nil, nil, []string{"--model", "DIR/google"}, "no such file or folder"},
	{"no text encoder", func(s *synth.Set) { s.NoText = true }, nil, nil, "the text encoder is missing"},
	{"a size between patches", nil, nil, []string{"--size", "50x32"}, "multiples of 16"},
	{"a size in words", nil, nil, []string{"--size", "large"}, "write width and height as 832x480"},
	{"no such decoder", nil, nil, []string{"--vae", "huge"}, "wan or tiny"},
	{"rising steps", nil, nil, []string{"--step-list", "250,500"}, "falling numbers"},
	{"steps that are words", nil, nil, []string{"--step-list", "a,b"}, "--step-list"},
	{"actions", nil, nil, []string{"--actions", "w3"}, "follows none"},
	{"a simulator's start", nil, nil, []string{"--start", "sim"}, "knows no simulator"},
	{"other noise", nil, nil, []string{"--noise", "pink"}, "native, torch-cpu"},
	{"two windows", nil, nil, []string{"--window", "3", "--local-attn-size", "9"}, "exclude each other"},
}

func TestHostileAndWrongFilesAreOneClearLine(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			dir := tinySet(t, "self-forcing", c.set)
			if c.change != nil {
				c.change(t, dir)
			}
			out := t.TempDir()
			args := append(append([]string(nil), small...), "--model", dir, "--frames", "5", "-o", filepath.Join(out, "a.webm"))
			for _, a := range c.args {
				args = append(args, strings.ReplaceAll(a, "DIR", dir))
			}
			r := longtake(t, args...)
			if r.code != exitUsage || !strings.Contains(r.err, c.want) || strings.Count(r.err, "\n") != 1 || len(r.err) > 2000 {
				t.Errorf("exit code %d, said %q, want %q", r.code, r.err, c.want)
			}
			if left := files(t, out); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
	if _, err := os.Stat("/tmp/hacked"); err == nil {
		t.Error("the pickle's program was run")
	}
}

func TestASafetensorsFileWithOverlapsIsRefused(t *testing.T) {
	dir := tinySet(t, "wan-causal-14b", nil)
	path := filepath.Join(dir, "krea-realtime-video-14b.safetensors")
	edit(t, path, func(b []byte) []byte {
		n := binary.LittleEndian.Uint64(b)
		at := bytes.Index(b[:8+n], []byte(`"data_offsets":[`))
		b[at+len(`"data_offsets":[`)] ^= 1 // another place
		return b
	})
	r := longtake(t, append(append([]string(nil), small...), "--model", dir, "-o", filepath.Join(dir, "a.webm"))...)
	if r.code != exitUsage || !strings.Contains(r.err, "data offsets") {
		t.Errorf("%d %s", r.code, r.err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("a: 1\nb:\n- 2\n- 3\nc: [1, 'x']\nd:\n  e: true # note\n"))
	f.Add([]byte("---\n\"k\": \"v: #\"\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		values, err := parseConfig(raw)
		if err != nil {
			return
		}
		g := generateCommand{}
		for key, apply := range configKeys {
			if v, ok := values[key]; ok {
				_ = apply(&g, v)
			}
		}
	})
}

func FuzzPrompts(f *testing.F) {
	f.Add([]byte("{\"prompts\": [\"a\"]}\n\n{\"prompt\": \"b\"}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, objects := range []bool{false, true} {
			scripts, err := parsePrompts(raw, objects)
			for _, s := range scripts {
				if err == nil && len(s) == 0 {
					t.Error("a video without a prompt")
				}
			}
		}
	})
}
