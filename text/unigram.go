package text

import (
	"fmt"
	"math"
	"unicode/utf8"

	"longtake/compute"
)

// Unigram is a tokenizer by a unigram language model (Kudo, arXiv:1804.10959): of all ways to write a text as pieces it takes
// the most probable. It is read-only and safe for concurrent use.
//
// It does what two programs do, which differ a little: read from spiece.model it follows sentencepiece 0.1.97, which keeps
// the sums of log-probabilities as float32; read from tokenizer.json it follows Hugging Face's tokenizers, which sums in
// float64, word by word, and takes special tokens out of the text first.
type Unigram struct {
	pieces       []piece
	lexicon      *lexicon
	bytes        [256]int32 // piece of a byte, -1 without
	byteFallback bool
	unknown      int32
	end, pad     int32
	minScore     float64
	maxScore     float64
	normaliser   normaliser
	fast         *fastRules // nil: sentencepiece
}

// piece is an entry of the vocabulary.
type piece struct {
	text  string
	score float64
	kind  kind
}

// kind is sentencepiece's type of a piece.
type kind uint8

const (
	normalPiece kind = 1 + iota
	unknownPiece
	controlPiece
	userPiece
	unusedPiece
	bytePiece
)

// unknownPenalty is how much less probable an unknown character is than the rarest piece.
const unknownPenalty = 10

// maxTokenizer is the most bytes of a file with a tokenizer; umT5's have 4 and 17 million.
const maxTokenizer = 64 << 20

// ReadSpiece reads a SentencePiece model (spiece.model, a protobuf message) of type unigram. The error says what is wrong
// with the file; it wraps compute.ErrUnsupported for other types of model.
func ReadSpiece(data []byte) (*Unigram, error) {
	u := &Unigram{unknown: -1, normaliser: normaliser{prefix: true, collapse: true, escape: true}}
	if err := u.readSpiece(data); err != nil {
		return nil, fmt.Errorf("read sentencepiece model: %w", err)
	}
	return u, nil
}

func (u *Unigram) readSpiece(data []byte) error {
	if len(data) > maxTokenizer {
		return fmt.Errorf("%d bytes, at most %d", len(data), maxTokenizer)
	}
	count := 0
	if err := eachField(data, func(f field) error {
		if f.id == 1 {
			count++
		}
		return nil
	}); err != nil {
		return err
	}
	if count > maxPieces {
		return errPieces
	}
	u.pieces = make([]piece, 0, count)
	end, pad := "</s>", "<pad>"
	if err := eachField(data, func(f field) error {
		switch f.id {
		case 1:
			return u.readPiece(f.data)
		case 2:
			return u.readTrainer(f.data, &end, &pad)
		case 3:
			return u.readNormaliser(f.data)
		}
		return nil
	}); err != nil {
		return err
	}
	if u.unknown < 0 {
		return fmt.Errorf("none of %d pieces is the unknown one", len(u.pieces))
	}
	u.end, u.pad = u.control(end), u.control(pad)
	if u.end < 0 {
		return fmt.Errorf("no piece %q ends a text", end)
	}
	return u.index()
}

func (u *Unigram) readPiece(message []byte) error {
	p, id := piece{kind: normalPiece}, len(u.pieces)
	if err := eachField(message, func(f field) error {
		switch f.id {
		case 1:
			p.text = string(f.data)
		case 2:
			p.score = float64(f.float())
		case 3:
			if f.number < uint64(normalPiece) || f.number > uint64(bytePiece) {
				return fmt.Errorf("unknown type %d", f.number)
			}
			p.kind = kind(f.number)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("piece %d: %w", id, err)
	}
	if p.kind == unknownPiece {
		if u.unknown >= 0 {
			return fmt.Errorf("pieces %d and %d are both the unknown one", u.unknown, id)
		}
		u.unknown = int32(id)
	}
	u.pieces = append(u.pieces, p)
	return nil
}

// readTrainer takes from the trainer's options what matters to a reader.
func (u *Unigram) readTrainer(message []byte, end, pad *string) error {
	return eachField(message, func(f field) error {
		switch f.id {
		case 3:
			if f.number != 1 {
				return fmt.Errorf("model of type %d, not unigram: %w", f.number, compute.ErrUnsupported)
			}
		case 24:
			u.normaliser.suffix = f.flag()
		case 35:
			u.byteFallback = f.flag()
		case 47:
			*end = string(f.data)
		case 48:
			*pad = string(f.data)
		}
		return nil
	})
}

func (u *Unigram) readNormaliser(message []byte) error {
	return eachField(message, func(f field) (err error) {
		switch f.id {
		case 2:
			u.normaliser.charsmap, err = newCharsmap(f.data)
		case 3:
			u.normaliser.prefix = f.flag()
		case 4:
			u.normaliser.collapse = f.flag()
		case 5:
			u.normaliser.escape = f.flag()
		}
		return err
	})
}

func (u *Unigram) control(text string) int32 {
	for i := range u.pieces {
		if u.pieces[i].kind == controlPiece && u.pieces[i].text == text {
			return int32(i)
		}
	}
	return -1
}

// index prepares the search once all pieces are there.
func (u *Unigram) index() (err error) {
	// Sentencepiece starts the maximum at FLT_MIN, the smallest positive number, and logarithms of probabilities stay below.
	u.minScore, u.maxScore = math.MaxFloat32, 0x1p-126
	for i := range u.bytes {
		u.bytes[i] = -1
	}
	for i := range u.pieces {
		p := &u.pieces[i]
		if math.IsNaN(p.score) || math.IsInf(p.score, 0) {
			return fmt.Errorf("piece %d has score %v", i, p.score)
		}
		if p.kind == normalPiece || u.fast != nil {
			u.minScore, u.maxScore = min(u.minScore, p.score), max(u.maxScore, p.score)
		}
		if b, ok := byteOf(p.text); ok && (p.kind == bytePiece || u.fast != nil) {
			u.bytes[b] = int32(i)
		} else if p.kind == bytePiece {
			return fmt.Errorf("piece %d stands for a byte, but is %q", i, p.text)
		}
	}
	for b, id := range u.bytes {
		if u.byteFallback && id < 0 {
			return fmt.Errorf("no piece for byte %#02x", b)
		}
	}
	if u.normaliser.symbols, err = newLexicon(u.pieces, func(_ int, p *piece) bool { return p.kind == userPiece }); err != nil {
		return err
	}
	u.lexicon, err = newLexicon(u.pieces, func(_ int, p *piece) bool {
		return p.kind == normalPiece || p.kind == userPiece || u.fast != nil
	})
	return err
}

// byteOf reads "<0x4F>".
func byteOf(s string) (b byte, ok bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	for _, c := range []byte(s[3:5]) {
		switch {
		case c >= '0' && c <= '9':
			b = b<<4 | (c - '0')
		case c >= 'A' && c <= 'F':
			b = b<<4 | (c - 'A' + 10)
		default:
			return 0, false
		}
	}
	return b, true
}

// Pieces returns the size of the vocabulary: ids are below it.
func (u *Unigram) Pieces() int { return len(u.pieces) }

// Piece returns the text of an id, "" for ids that do not exist. A space is written ▁.
func (u *Unigram) Piece(id int32) string {
	if id < 0 || int(id) >= len(u.pieces) {
		return ""
	}
	return u.pieces[id].text
}

// End returns the id that ends a text, Pad the one that fills up (-1 if there is none), Unknown the one for what has no
// piece; 1, 0 and 2 in umT5.
func (u *Unigram) End() int32 { return u.end }

// Pad returns the id that fills up, -1 if there is none.
func (u *Unigram) Pad() int32 { return u.pad }

// Unknown returns the id of what has no piece.
func (u *Unigram) Unknown() int32 { return u.unknown }

// Encode returns the ids of a text, without an end. The text may hold any bytes. Time and memory grow with its length.
func (u *Unigram) Encode(s string) []int32 {
	if u.fast != nil {
		return u.encodeFast(s)
	}
	return u.best(nil, u.normaliser.text(s))
}

// EncodePrompt returns the ids of a prompt with the end behind them, at most limit (at least 1) in all: what is too long is
// cut and still ends.
func (u *Unigram) EncodePrompt(s string, limit int) []int32 {
	ids := u.Encode(s)
	return append(ids[:min(len(ids), limit-1)], u.end)
}

// node is the best way to write the text up to some byte.
type node struct {
	score float64
	id    int32
	from  int32 // where the last piece starts; -1: no way found yet
}

// best appends the most probable pieces of a normalised text. Every position is reached: a character without a piece of its
// own is an unknown one.
func (u *Unigram) best(ids []int32, s string) []int32 {
	if s == "" {
		return ids
	}
	nodes := make([]node, len(s)+1)
	for i := range nodes {
		nodes[i].from = -1
	}
	nodes[0].from = 0
	for i := 0; i < len(s); {
		_, width := utf8.DecodeRuneInString(s[i:])
		if !u.extend(nodes, s, i, width) {
			u.improve(&nodes[i+width], u.unknownScore(nodes[i].score), u.unknown, i)
		}
		i += width
	}
	return u.collect(ids, nodes, s)
}

// extend tries all pieces that start at byte i, and tells whether one of them is just the character there.
func (u *Unigram) extend(nodes []node, s string, i, width int) (single bool) {
	c, till := u.lexicon.start(), nodes[i].score
	for j := i; j < len(s); j++ {
		id, any := u.lexicon.next(&c, s[j])
		if !any {
			break
		}
		if id < 0 {
			continue
		}
		p, n := &u.pieces[id], j+1-i
		score := p.score
		if p.kind == userPiece && u.fast == nil {
			score = float64(float32(n)*float32(u.maxScore)) - 0.1 // so that it wins
		}
		u.improve(&nodes[j+1], score+till, id, i)
		single = single || n == width
	}
	return single
}

// unknownScore is the score after an unknown character; sentencepiece adds it in float32.
func (u *Unigram) unknownScore(till float64) float64 {
	if u.fast != nil {
		return u.minScore - unknownPenalty + till
	}
	return float64(float32(u.minScore) - unknownPenalty + float32(till))
}

// improve takes a candidate if it is better. Sentencepiece compares the float64 sum with the float32 that it keeps; of equal
// ones the first stays.
func (u *Unigram) improve(n *node, score float64, id int32, from int) {
	if n.from >= 0 && score <= n.score {
		return
	}
	if u.fast == nil {
		score = float64(float32(score))
	}
	*n = node{score, id, int32(from)}
}

// collect walks back along the best path. Neighbouring unknown characters are one unknown piece, or their bytes.
func (u *Unigram) collect(ids []int32, nodes []node, s string) []int32 {
	to := len(nodes) - 1
	path := make([]int32, 0, to/2+1) // ends of pieces, last first
	for end := to; end > 0; end = int(nodes[end].from) {
		path = append(path, int32(end))
	}
	lastUnknown := false
	for k := len(path) - 1; k >= 0; k-- {
		n := nodes[path[k]]
		switch {
		case n.id != u.unknown:
			ids = append(ids, n.id)
		case u.byteFallback:
			for _, b := range []byte(s[n.from:path[k]]) {
				ids = append(ids, u.bytes[b])
			}
		case !lastUnknown:
			ids = append(ids, u.unknown)
		}
		lastUnknown = n.id == u.unknown
	}
	return ids
}
