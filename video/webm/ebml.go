package webm

import "math"

// unknownSize is an eight-byte size field with all value bits set, to be patched at the end.
var unknownSize = []byte{0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}

// appendID appends an element id; ids carry their own length marker.
func appendID(b []byte, id uint32) []byte {
	for shift := 24; shift >= 0; shift -= 8 {
		if v := id >> shift; v != 0 {
			b = append(b, byte(v))
		}
	}
	return b
}

// appendSize appends a size in as few bytes as hold it; the value of all ones means "unknown" and
// is avoided by taking one byte more.
func appendSize(b []byte, n int) []byte {
	width := 1
	for uint64(n) >= 1<<(7*width)-1 {
		width++
	}
	return append(b, bigEndian(uint64(n)|1<<(7*width), width)...)
}

func bigEndian(v uint64, width int) []byte {
	b := make([]byte, width)
	for i := range b {
		b[i] = byte(v >> (8 * (width - 1 - i)))
	}
	return b
}

func element(id uint32, data []byte) []byte {
	return append(appendSize(appendID(nil, id), len(data)), data...)
}

func master(id uint32, children ...[]byte) []byte {
	var data []byte
	for _, c := range children {
		data = append(data, c...)
	}
	return element(id, data)
}

func uintElement(id uint32, v uint64) []byte {
	width := 1
	for width < 8 && v>>(8*width) != 0 {
		width++
	}
	return element(id, bigEndian(v, width))
}

func floatElement(id uint32, v float64) []byte {
	return element(id, bigEndian(math.Float64bits(v), 8))
}

func textElement(id uint32, s string) []byte { return element(id, []byte(s)) }
