package api

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestControlsAreReadStrictly(t *testing.T) {
	for _, text := range []string{
		`{"type":"keys","keys":["KeyW"],"id":3,"ts":12.5}`, `{"type":"keys"}`, `{"type":"action","action":"forward"}`,
		`{"type":"prompt","prompt":"the sky is night ."}`, `{"type":"policy","policy":"full","view":1}`, `{"type":"compare"}`,
		`{"type":"pause","paused":true}`, `{"type":"reset","seed":18446744073709551615}`, `{"type":"fps","fps":15}`,
		`{"type":"record","record":true}`, `{"type":"ping","ts":1}`,
	} {
		if _, err := ParseControl([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for name, text := range map[string]string{
		"nothing":            ``,
		"no object":          `[1]`,
		"a type that is not": `{"type":"shutdown"}`,
		"no type":            `{}`,
		"an unknown field":   `{"type":"ping","path":"/etc/passwd"}`,
		"two values":         `{"type":"ping"}{"type":"ping"}`,
		"too many keys":      `{"type":"keys","keys":[` + strings.Repeat(`"a",`, MaxKeys) + `"b"]}`,
		"a long key":         `{"type":"keys","keys":["` + strings.Repeat("k", MaxKeyBytes+1) + `"]}`,
		"a long prompt":      `{"type":"prompt","prompt":"` + strings.Repeat("p", MaxPromptBytes+1) + `"}`,
		"a long message":     `{"type":"ping","action":"` + strings.Repeat("p", MaxControlBytes) + `"}`,
		"an fps of nothing":  `{"type":"fps"}`,
		"a huge fps":         `{"type":"fps","fps":1e300}`,
		"a negative seed":    `{"type":"reset","seed":-1}`,
		"a far view":         `{"type":"policy","view":2}`,
		"a time too large":   `{"type":"ping","ts":1e300}`,
	} {
		if c, err := ParseControl([]byte(text)); err == nil {
			t.Errorf("%s was accepted: %+v", name, c)
		}
	}
}

func TestFramesTravelWhole(t *testing.T) {
	want := FrameHeader{Frame: 7, Chunk: 6, View: 1, Format: "raw", Width: 2, Height: 1, Policy: "window", Action: "forward", GenMS: 41.5,
		CacheBytes: 1 << 40, Heads: []int{1, 2}, Echo: 123.25}
	image := []byte("\x00\xffpicture")
	message, err := AppendFrame([]byte("before"), &want, image)
	if err != nil {
		t.Fatal(err)
	}
	got, tail, err := ParseFrame(message[len("before"):])
	if err != nil || !reflect.DeepEqual(got, want) || !bytes.Equal(tail, image) {
		t.Fatalf("got %+v %q %v", got, tail, err)
	}
	for n := range len(message) - len("before") - len(image) {
		if _, _, err := ParseFrame(message[len("before"):][:n]); err == nil {
			t.Fatalf("a message cut to %d bytes was accepted", n)
		}
	}
}

func TestNumbersMayBeStrings(t *testing.T) {
	for text, want := range map[string]Number{`{"seconds":"4"}`: 4, `{"seconds":2.5}`: 2.5} {
		var r VideoRequest
		if err := Strict([]byte(text), &r); err != nil || r.Seconds != want {
			t.Errorf("%s: %v %v", text, r.Seconds, err)
		}
	}
	for _, text := range []string{`{"seconds":"NaN"}`, `{"seconds":-1}`, `{"seconds":"4s"}`, `{"seconds":[]}`, `{"seconds":1e99}`} {
		if err := Strict([]byte(text), new(VideoRequest)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add([]byte(`{"type":"keys","keys":["KeyW","ArrowLeft"],"id":1,"ts":5}`))
	f.Add([]byte(`{"type":"prompt","prompt":"you start in the north ."}`))
	f.Add([]byte(`{"type":"reset","seed":3,"start":"sim:9"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseControl(b)
		if err == nil && (len(c.Keys) > MaxKeys && c.Type == "keys" || len(c.Prompt) > MaxPromptBytes && c.Type == "prompt") {
			t.Fatalf("beyond the limits: %+v", c)
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	m, _ := AppendFrame(nil, &FrameHeader{Frame: 1, Format: "jpeg"}, []byte{0xff, 0xd8})
	f.Add(m)
	f.Add([]byte{255, 255, 255, 255, '{'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, image, err := ParseFrame(b); err == nil {
			m, err := AppendFrame(nil, &h, image)
			if err != nil {
				t.Fatal(err)
			}
			if again, tail, err := ParseFrame(m); err != nil || !bytes.Equal(tail, image) || again.Frame != h.Frame {
				t.Fatalf("does not survive: %v", err)
			}
		}
	})
}

func FuzzBodies(f *testing.F) {
	f.Add([]byte(`{"seed":7,"start":"sim","policy":"window","image":"iVBORw0KGgo="}`))
	f.Add([]byte(`{"prompt":"a","seconds":"4","size":"256x256"}`))
	f.Add([]byte(`{"actions":["forward"],"format":"png"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Strict(b, new(SessionRequest))
		_ = Strict(b, new(VideoRequest))
		_ = Strict(b, new(StepRequest))
		_ = Strict(b, new(Offer))
	})
}
