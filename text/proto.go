package text

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// errTruncated says that a message ends inside a field.
var errTruncated = errors.New("message ends inside a field")

// field is one field of a protobuf message: number holds varints and fixed-width values, data the bytes of a
// length-delimited one, which belong to the message.
type field struct {
	id     int
	number uint64
	data   []byte
}

func (f field) flag() bool     { return f.number != 0 }
func (f field) float() float32 { return math.Float32frombits(uint32(f.number)) }

// eachField calls visit for the fields of a message in order. Groups, which proto2 gave up, are an error.
func eachField(message []byte, visit func(field) error) error {
	for b := message; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errTruncated
		}
		b = b[n:]
		f, used := field{id: int(tag >> 3 & math.MaxInt32)}, 0
		switch tag & 7 {
		case 0:
			if f.number, used = binary.Uvarint(b); used <= 0 {
				return errTruncated
			}
		case 1:
			if used = 8; len(b) >= used {
				f.number = binary.LittleEndian.Uint64(b)
			}
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return errTruncated
			}
			used = n + int(size)
			f.data = b[n:used]
		case 5:
			if used = 4; len(b) >= used {
				f.number = uint64(binary.LittleEndian.Uint32(b))
			}
		default:
			return fmt.Errorf("field %d has wire type %d", f.id, tag&7)
		}
		if used > len(b) {
			return errTruncated
		}
		b = b[used:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}
