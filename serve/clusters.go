package serve

import (
	"io"
	"time"
)

// clusters writes a WebM file that is never patched (RFC 9559: a segment of unknown size), a cluster of whole frames at a time:
// whatever ends the writing, the file can be played up to the last cluster.
type clusters struct {
	out           io.Writer
	width, height int
	open          []byte
	started       time.Duration
}

// clusterTime is how much video a crash may take.
const clusterTime = time.Second

func newClusters(out io.Writer, width, height int) *clusters {
	return &clusters{out: out, width: width, height: height}
}

// Element ids, RFC 9559 section 5.1.
const (
	idEBML        = 0x1A45DFA3
	idDocType     = 0x4282
	idSegment     = 0x18538067
	idInfo        = 0x1549A966
	idScale       = 0x2AD7B1
	idMuxingApp   = 0x4D80
	idWritingApp  = 0x5741
	idTracks      = 0x1654AE6B
	idTrackEntry  = 0xAE
	idTrackNumber = 0xD7
	idTrackUID    = 0x73C5
	idTrackType   = 0x83
	idCodecID     = 0x86
	idVideo       = 0xE0
	idPixelWidth  = 0xB0
	idPixelHeight = 0xBA
	idCluster     = 0x1F43B675
	idTimestamp   = 0xE7
	idSimpleBlock = 0xA3
)

// head writes everything before the first frame.
func (c *clusters) head() error {
	b := element(idEBML, element(idDocType, []byte("webm")))
	b = appendNumber(b, idSegment)
	b = append(b, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF)
	b = append(b, element(idInfo, number(idScale, 1_000_000), element(idMuxingApp, []byte("longtake")),
		element(idWritingApp, []byte("longtake")))...)
	b = append(b, element(idTracks, element(idTrackEntry, number(idTrackNumber, 1), number(idTrackUID, 1), number(idTrackType, 1),
		element(idCodecID, []byte("V_VP8")),
		element(idVideo, number(idPixelWidth, uint64(c.width)), number(idPixelHeight, uint64(c.height)))))...)
	_, err := c.out.Write(b)
	return err
}

// frame adds a VP8 key frame.
func (c *clusters) frame(at time.Duration, data []byte) error {
	if len(c.open) > 0 && at-c.started >= clusterTime {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if len(c.open) == 0 {
		c.started = at.Truncate(time.Millisecond)
		c.open = append(c.open, number(idTimestamp, uint64(c.started.Milliseconds()))...)
	}
	offset := (at - c.started).Milliseconds()
	c.open = append(c.open, element(idSimpleBlock, []byte{0x81, byte(offset >> 8), byte(offset), 0x80}, data)...)
	return nil
}

// flush writes the cluster in work.
func (c *clusters) flush() error {
	if len(c.open) == 0 {
		return nil
	}
	_, err := c.out.Write(element(idCluster, c.open))
	c.open = c.open[:0]
	return err
}

// element is an id, the size of the parts, and the parts.
func element(id uint32, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := appendNumber(make([]byte, 0, n+12), id)
	width := 1
	for uint64(n) >= 1<<(7*width)-1 {
		width++
	}
	size := uint64(n) | 1<<(7*width)
	for i := width - 1; i >= 0; i-- {
		b = append(b, byte(size>>(8*i)))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// number is an element that holds an unsigned number.
func number(id uint32, v uint64) []byte {
	b := []byte{byte(v >> 56), byte(v >> 48), byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return element(id, b)
}

// appendNumber appends an id, which carries its own length.
func appendNumber(b []byte, id uint32) []byte {
	for shift := 24; shift >= 0; shift -= 8 {
		if v := id >> shift; v != 0 {
			b = append(b, byte(v))
		}
	}
	return b
}
