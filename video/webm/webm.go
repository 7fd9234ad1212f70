// Package webm writes WebM files with one VP8 video track.
//
// What enters: [video.Frame] values through a [video.Writer]. What leaves: a Matroska file with the
// WebM profile that browsers and ffmpeg play: SeekHead, Info with duration, one track, clusters of
// SimpleBlocks, Cues at the end. Every frame is a VP8 key frame (RFC 6386), so any frame can be
// sought to and the encoder needs no motion search; the price is a bit rate some two to four times
// that of an inter-coded file.
//
// The container (RFC 8794 EBML, RFC 9559 Matroska) is written here. The VP8 encoder is
// github.com/deepteams/webp behind the [KeyFrameEncoder] interface. The container holds no time, name
// or chance. Several frames are encoded at a time, one on each processor, and written in order. The
// same frames give the same bytes, whatever the number of processors, as long as GOMAXPROCS is at
// least 2 and the picture at least 49 pixels high; with one processor or a smaller picture the
// encoder's choices depend on frames it saw before (see method), so sizes and bytes vary a little
// from run to run, and frames are encoded one after the other.
package webm

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"

	"longtake/video"
)

// New makes an atomic writer for path, which must be a regular file or not exist: sizes and
// duration are patched in at Close.
func New(path string, o video.Options) (video.AtomicWriter, error) {
	var encoders []KeyFrameEncoder
	for range atOnce(o) {
		encoders = append(encoders, NewVP8(o.Quality))
	}
	return NewWith(path, o, encoders...)
}

// NewWith is New with other VP8 encoders, which work at the same time on a frame each;
// Options.Quality is then not looked at.
func NewWith(path string, o video.Options, encoders ...KeyFrameEncoder) (video.AtomicWriter, error) {
	return video.NewFile(path, o, func(out io.WriteSeeker, o video.Options) (video.Encoder, error) {
		return open(out, o, encoders)
	})
}

const (
	// mostAtOnce bounds the frames in work, each of which takes some ten times its pixels.
	mostAtOnce = 16
	// parallelHeight is the least height of a picture whose bytes do not depend on those before it.
	parallelHeight = 49
)

// atOnce is how many frames may be encoded at the same time.
func atOnce(o video.Options) int {
	if o.Height*max(o.Scale, 1) < parallelHeight {
		return 1
	}
	return min(runtime.GOMAXPROCS(0)+1, mostAtOnce) // one is waited for
}

const (
	timestampScale = 1_000_000 // nanoseconds a tick: the file counts milliseconds
	// A block's timestamp is a signed 16-bit offset from its cluster's; browsers also read a
	// cluster at a time. Two seconds or one mebibyte, whichever comes first.
	clusterMillis = 2000
	clusterBytes  = 1 << 20
	trackNumber   = 1
)

// Matroska element ids, RFC 9559 section 5.1, with their length marker.
const (
	idEBML               = 0x1A45DFA3
	idEBMLVersion        = 0x4286
	idEBMLReadVersion    = 0x42F7
	idEBMLMaxIDLength    = 0x42F2
	idEBMLMaxSizeLength  = 0x42F3
	idDocType            = 0x4282
	idDocTypeVersion     = 0x4287
	idDocTypeReadVersion = 0x4285
	idSegment            = 0x18538067
	idSeekHead           = 0x114D9B74
	idSeek               = 0x4DBB
	idSeekID             = 0x53AB
	idSeekPosition       = 0x53AC
	idInfo               = 0x1549A966
	idTimestampScale     = 0x2AD7B1
	idDuration           = 0x4489
	idMuxingApp          = 0x4D80
	idWritingApp         = 0x5741
	idTracks             = 0x1654AE6B
	idTrackEntry         = 0xAE
	idTrackNumber        = 0xD7
	idTrackUID           = 0x73C5
	idTrackType          = 0x83
	idFlagLacing         = 0x9C
	idDefaultDuration    = 0x23E383
	idCodecID            = 0x86
	idVideo              = 0xE0
	idPixelWidth         = 0xB0
	idPixelHeight        = 0xBA
	idColour             = 0x55B0
	idMatrix             = 0x55B1
	idRange              = 0x55B9
	idCluster            = 0x1F43B675
	idTimestamp          = 0xE7
	idSimpleBlock        = 0xA3
	idCues               = 0x1C53BB6B
	idCuePoint           = 0xBB
	idCueTime            = 0xB3
	idCueTrackPositions  = 0xB7
	idCueTrack           = 0xF7
	idCueClusterPosition = 0xF1
)

type cue struct {
	millis   int64
	position int64 // of the cluster, from the start of the segment's data
}

type muxer struct {
	out  io.WriteSeeker
	opts video.Options
	ring ring

	written  int64 // bytes in the file
	segment  int64 // where the segment's data starts
	seekHead int64 // where each to-be-patched element lies in the file
	duration int64
	count    int64 // frames

	cues    []cue
	cluster []byte // blocks of the open cluster
	started int64  // its timestamp
}

func open(out io.WriteSeeker, o video.Options, encoders []KeyFrameEncoder) (*muxer, error) {
	if _, err := out.Seek(0, io.SeekCurrent); err != nil {
		return nil, fmt.Errorf("webm needs a file that can be patched, not a pipe: %w", err)
	}
	m := &muxer{out: out, opts: o, ring: newRing(encoders)}
	return m, m.write(m.header())
}

func (m *muxer) write(p []byte) error {
	n, err := m.out.Write(p)
	m.written += int64(n)
	return err
}

// header builds all that stands before the first cluster and notes what Finish must patch.
func (m *muxer) header() []byte {
	b := master(idEBML,
		uintElement(idEBMLVersion, 1), uintElement(idEBMLReadVersion, 1),
		uintElement(idEBMLMaxIDLength, 4), uintElement(idEBMLMaxSizeLength, 8),
		textElement(idDocType, "webm"),
		uintElement(idDocTypeVersion, 4), uintElement(idDocTypeReadVersion, 2))
	b = appendID(b, idSegment)
	b = append(b, unknownSize...)
	m.segment = int64(len(b))
	m.seekHead = m.segment
	b = append(b, m.seekElement(0, 0, 0)...)

	info := int64(len(b))
	b = append(b, master(idInfo,
		uintElement(idTimestampScale, timestampScale),
		textElement(idMuxingApp, "longtake"), textElement(idWritingApp, "longtake"),
		floatElement(idDuration, 0))...)
	m.duration = int64(len(b)) - 8

	tracks := int64(len(b))
	b = append(b, master(idTracks, master(idTrackEntry,
		uintElement(idTrackNumber, trackNumber), uintElement(idTrackUID, 1),
		uintElement(idTrackType, 1), uintElement(idFlagLacing, 0),
		uintElement(idDefaultDuration, uint64(m.opts.FPS.Ticks(1, 1e9))),
		textElement(idCodecID, "V_VP8"),
		master(idVideo,
			uintElement(idPixelWidth, uint64(m.opts.OutWidth())),
			uintElement(idPixelHeight, uint64(m.opts.OutHeight())),
			// VP8 is BT.601 (6 = SMPTE 170M, same matrix) and limited range (1) by its
			// specification; said aloud because players guess BT.709 for large pictures.
			master(idColour, uintElement(idMatrix, 6), uintElement(idRange, 1)))))...)
	copy(b[m.seekHead:], m.seekElement(info, tracks, 0))
	return b
}

// seekElement has the same length whatever the positions are (counted from the start of the file),
// so that it can be written before the position of the cues is known.
func (m *muxer) seekElement(info, tracks, cues int64) []byte {
	entry := func(id uint32, at int64) []byte {
		return master(idSeek, element(idSeekID, appendID(nil, id)),
			element(idSeekPosition, bigEndian(uint64(max(at-m.segment, 0)), 8)))
	}
	return master(idSeekHead, entry(idInfo, info), entry(idTracks, tracks), entry(idCues, cues))
}

// Encode implements video.Encoder: it starts the frame, and when no encoder is left for the next writes
// the oldest.
func (m *muxer) Encode(_ context.Context, f video.Frame) error {
	m.ring.start(f)
	if m.ring.full() {
		return m.writeOldest()
	}
	return nil
}

// writeOldest waits for the oldest frame in work and puts it into a cluster.
func (m *muxer) writeOldest() error {
	data, err := m.ring.finish()
	if err != nil {
		return err
	}
	now := m.opts.FPS.Ticks(m.count, 1000)
	if len(m.cluster) > 0 && (now-m.started >= clusterMillis || len(m.cluster)+len(data) > clusterBytes) {
		if err := m.flush(); err != nil {
			return err
		}
	}
	if len(m.cluster) == 0 {
		m.started = now
		m.cluster = append(m.cluster, uintElement(idTimestamp, uint64(now))...)
	}
	offset := now - m.started
	if offset > math.MaxInt16 {
		// Cannot happen: clusters end after clusterMillis.
		panic(fmt.Sprintf("webm: block %d ms into its cluster", offset))
	}
	m.cluster = appendID(m.cluster, idSimpleBlock)
	m.cluster = appendSize(m.cluster, 4+len(data))
	m.cluster = append(m.cluster, 0x80|trackNumber, byte(offset>>8), byte(offset), 0x80) // key frame
	m.cluster = append(m.cluster, data...)
	m.count++
	return nil
}

// flush writes the open cluster.
func (m *muxer) flush() error {
	m.cues = append(m.cues, cue{m.started, m.written - m.segment})
	head := appendSize(appendID(nil, idCluster), len(m.cluster))
	if err := m.write(head); err != nil {
		return err
	}
	err := m.write(m.cluster)
	m.cluster = m.cluster[:0]
	return err
}

// Finish implements video.Encoder: cues, then the three places that were left open.
func (m *muxer) Finish() error {
	for m.ring.busy() {
		if err := m.writeOldest(); err != nil {
			return err
		}
	}
	if err := m.flush(); err != nil {
		return err
	}
	cues := m.written
	points := make([][]byte, len(m.cues))
	for i, c := range m.cues {
		points[i] = master(idCuePoint, uintElement(idCueTime, uint64(c.millis)),
			master(idCueTrackPositions, uintElement(idCueTrack, trackNumber),
				uintElement(idCueClusterPosition, uint64(c.position))))
	}
	if err := m.write(master(idCues, points...)); err != nil {
		return err
	}
	size := bigEndian(uint64(m.written-m.segment)|1<<56, 8)
	if err := m.patch(m.segment-8, size); err != nil {
		return err
	}
	millis := float64(m.count) * 1000 * float64(m.opts.FPS.Den) / float64(m.opts.FPS.Num)
	if err := m.patch(m.duration, bigEndian(math.Float64bits(millis), 8)); err != nil {
		return err
	}
	// Only the last of the three entries changes.
	return m.patch(m.cuesEntry(), bigEndian(uint64(cues-m.segment), 8))
}

// cuesEntry is where the position of the cues stands: the last 8 bytes of the SeekHead.
func (m *muxer) cuesEntry() int64 {
	return m.seekHead + int64(len(m.seekElement(0, 0, 0))) - 8
}

func (m *muxer) patch(at int64, p []byte) error {
	if _, err := m.out.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if _, err := m.out.Write(p); err != nil {
		return err
	}
	_, err := m.out.Seek(0, io.SeekEnd)
	return err
}

// Discard implements video.Encoder.
func (m *muxer) Discard() {
	for m.ring.busy() {
		_, _ = m.ring.finish() // nobody wants the frame
	}
	m.cluster = nil
}
