package serve

import (
	"bytes"
	"testing"
	"time"

	"longtake/video"
	"longtake/video/webm"
)

func videoOptions() video.Options { return video.Options{Width: toySize, Height: toySize, Scale: 4} }

func toyFrame() video.Frame { return video.NewFrame(toySize, toySize) }

func TestARecordingCanBePlayedUpToItsLastWholeCluster(t *testing.T) {
	var out bytes.Buffer
	w := newClusters(&out, 32, 32)
	coder := webm.NewVP8(0)
	if err := w.head(); err != nil {
		t.Fatal(err)
	}
	const frames = 100
	for i := range frames {
		data, err := coder.EncodeKeyFrame(toyFrame().Upscale(4, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.frame(time.Duration(i)*50*time.Millisecond, data); err != nil {
			t.Fatal(err)
		}
	}
	killed := bytes.Clone(out.Bytes())
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	if n := blocks(t, out.Bytes()); n != frames {
		t.Errorf("%d frames in the whole file", n)
	}
	if n := blocks(t, killed); n != 80 {
		t.Errorf("%d frames in the file of a process that was killed, 80 were flushed", n)
	}
}

// blocks counts the frames of a file, walking through its elements.
func blocks(t *testing.T, b []byte) (n int) {
	t.Helper()
	for len(b) > 0 {
		id, size, rest := header(b)
		switch {
		case id == idSegment:
			b = rest
			continue
		case size > len(rest):
			t.Fatalf("element %x of %d bytes with %d left", id, size, len(rest))
		case id == idCluster:
			n += blocks(t, rest[:size])
		case id == idSimpleBlock:
			n++
		}
		b = rest[size:]
	}
	return n
}

func header(b []byte) (id, size int, rest []byte) {
	take := func(keep bool) int {
		n := 1
		for b[0]<<(n-1)&0x80 == 0 {
			n++
		}
		v := int(b[0])
		if !keep {
			v &= 0xff >> n
		}
		for _, c := range b[1:n] {
			v = v<<8 | int(c)
		}
		b = b[n:]
		return v
	}
	id = take(true)
	return id, take(false), b
}
