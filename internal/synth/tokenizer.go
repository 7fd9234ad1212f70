package synth

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Spiece is a small SentencePiece model (unigram, with byte fallback): control pieces as umT5's, all bytes, ASCII characters
// and a few words. It has fewer than 400 pieces.
func Spiece() []byte {
	var model []byte
	add := func(text string, score float64, kind uint64) {
		var piece []byte
		piece = field(piece, 1, []byte(text))
		piece = append(piece, 2<<3|5)
		piece = binary.LittleEndian.AppendUint32(piece, math.Float32bits(float32(score)))
		piece = append(piece, 3<<3, byte(kind))
		model = field(model, 1, piece)
	}
	const normal, unknown, control, bytePiece = 1, 2, 3, 6
	add("<pad>", 0, control)
	add("</s>", 0, control)
	add("<unk>", 0, unknown)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), 0, bytePiece)
	}
	add("▁", -3, normal)
	for c := '!'; c <= '~'; c++ {
		add(string(c), -6, normal)
	}
	for i, word := range []string{"▁a", "▁the", "▁of", "▁in", "▁walk", "▁cat", "▁sea", "▁night", "ing", "er"} {
		add(word, -4-float64(i)/8, normal)
	}
	trainer := []byte{3 << 3, 1} // unigram
	trainer = append(trainer, 35<<3&0x7f|0x80, 35>>4, 1)
	model = field(model, 2, trainer)
	return field(model, 3, []byte{3 << 3, 1, 4 << 3, 1, 5 << 3, 1})
}

// field appends a protobuf field of bytes.
func field(b []byte, id int, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(id)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}
