package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"longtake/compute"
)

const (
	// headerMax is the bound on the header that the reference implementation also keeps.
	headerMax = 100_000_000
	// rankMax is ours: convolutions over time have 5 dimensions, nothing has more than 8.
	rankMax = 8
	// metadataKey is the one header key that is not a tensor.
	metadataKey = "__metadata__"
)

// element describes a type of the format. Types that compute does not know can be listed and skipped, not read.
type element struct {
	bits  int
	dtype compute.DType
	known bool
}

var elements = map[string]element{
	"F32": {32, compute.F32, true}, "BF16": {16, compute.BF16, true}, "F16": {16, compute.F16, true},
	"F64": {64, compute.F64, true}, "I64": {64, compute.I64, true}, "I32": {32, compute.I32, true},
	"U8": {8, compute.U8, true}, "BOOL": {8, compute.U8, true},
	"F8_E4M3": {8, compute.F8E4M3, true}, "F8_E5M2": {8, compute.F8E5M2, true},
	"I8": {bits: 8}, "I16": {bits: 16}, "U16": {bits: 16}, "U32": {bits: 32}, "U64": {bits: 64},
	"F8_E8M0": {bits: 8}, "F4": {bits: 4}, "F6_E2M3": {bits: 6}, "F6_E3M2": {bits: 6}, "C64": {bits: 64},
}

// record is one line of the header: what the file says about a tensor.
type record struct {
	name       string
	typ        string
	shape      []int
	begin, end int64
}

// problem is what a parser finds wrong, before the file's name is known.
type problem struct{ tensor, what, todo string }

func (p *problem) Error() string { return p.what }

const (
	todoAgain   = "download or copy it again"
	todoConvert = "convert it to safetensors with its own library"
)

func damaged(tensor, format string, args ...any) *problem {
	return &problem{tensor, fmt.Sprintf(format, args...), "the file is damaged: " + todoAgain}
}

// parseHeader reads the JSON object. Depth is bounded by construction: nothing but the format's three levels is accepted.
func parseHeader(raw []byte) ([]record, map[string]string, *problem) {
	if !utf8.Valid(raw) {
		return nil, nil, damaged("", "the header is not UTF-8 text")
	}
	d := &reader{json.NewDecoder(bytes.NewReader(raw))}
	d.UseNumber()
	var records []record
	var metadata map[string]string
	seen := make(map[string]bool)
	err := d.object(func(name string) error {
		if seen[name] {
			return damaged(name, "listed twice in the header")
		}
		seen[name] = true
		if name == metadataKey {
			var err error
			metadata, err = d.metadata()
			return err
		}
		r, err := d.record(name)
		records = append(records, r)
		return err
	})
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = damaged("", "text follows the header's closing brace")
		}
	}
	var p *problem
	switch {
	case err == nil:
		return records, metadata, nil
	case errors.As(err, &p):
		return nil, nil, p
	}
	return nil, nil, damaged("", "the header is not the JSON that the format asks for: %v", err)
}

// reader walks JSON by tokens, because decoding into a map would hide duplicate names.
type reader struct{ *json.Decoder }

func (d *reader) delim(want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("found %v, want %q", clip(fmt.Sprint(t)), want.String())
	}
	return nil
}

func (d *reader) str() (string, error) {
	t, err := d.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("found %v, want a string", clip(fmt.Sprint(t)))
	}
	return s, nil
}

// object calls each for every key; each must consume the value.
func (d *reader) object(each func(key string) error) error {
	if err := d.delim('{'); err != nil {
		return err
	}
	for d.More() {
		key, err := d.str()
		if err != nil {
			return err
		}
		if err := each(key); err != nil {
			return err
		}
	}
	return d.delim('}')
}

func (d *reader) metadata() (map[string]string, error) {
	m := make(map[string]string)
	return m, d.object(func(key string) error {
		if _, twice := m[key]; twice {
			return damaged(metadataKey, "key %s is listed twice", clip(key))
		}
		v, err := d.str()
		m[key] = v
		return err
	})
}

func (d *reader) record(name string) (record, error) {
	r := record{name: name, begin: -1}
	seen := make(map[string]bool, 3)
	err := d.object(func(key string) error {
		if seen[key] {
			return damaged(name, "field %s is given twice", clip(key))
		}
		seen[key] = true
		switch key {
		case "dtype":
			var err error
			r.typ, err = d.str()
			return err
		case "shape":
			dims, err := d.integers(name, key, rankMax)
			r.shape = make([]int, len(dims))
			for i, n := range dims {
				if n > math.MaxInt {
					return damaged(name, "dimension %d of the shape is too large for this machine", n)
				}
				r.shape[i] = int(n)
			}
			return err
		case "data_offsets":
			ends, err := d.integers(name, key, 2)
			if err == nil && len(ends) != 2 {
				err = damaged(name, "%d data offsets, want 2", len(ends))
			}
			if err == nil {
				r.begin, r.end = ends[0], ends[1]
			}
			return err
		}
		return damaged(name, "unknown field %s", clip(key))
	})
	if err == nil && len(seen) != 3 {
		err = damaged(name, "dtype, shape or data_offsets is missing")
	}
	return r, err
}

// integers reads an array of at most most whole numbers of 0 to 2^63-1.
func (d *reader) integers(tensor, field string, most int) ([]int64, error) {
	if err := d.delim('['); err != nil {
		return nil, err
	}
	list := []int64{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		n, ok := t.(json.Number)
		v, bad := strconv.ParseUint(n.String(), 10, 63)
		if !ok || bad != nil {
			return nil, damaged(tensor, "%s holds %s, want whole numbers of 0 or more that fit 63 bits", field, clip(fmt.Sprint(t)))
		}
		if len(list) == most {
			return nil, damaged(tensor, "%s holds more than %d numbers", field, most)
		}
		list = append(list, int64(v))
	}
	return list, d.delim(']')
}

// span returns the bytes that type and shape ask for.
func (r *record) span() (int64, *problem) {
	e, ok := elements[r.typ]
	if !ok {
		return 0, &problem{r.name, fmt.Sprintf("unknown element type %s", clip(r.typ)), "the file is damaged, or written by something newer: " + todoConvert}
	}
	n := uint64(1)
	for _, dim := range r.shape {
		hi, lo := bits.Mul64(n, uint64(dim))
		if hi != 0 || lo > math.MaxInt64/64 || lo > math.MaxInt/8 {
			return 0, damaged(r.name, "the number of elements of shape %v overflows", r.shape)
		}
		n = lo
	}
	all := n * uint64(e.bits)
	if all%8 != 0 {
		return 0, damaged(r.name, "shape %v of %s does not end at a whole byte", r.shape, r.typ)
	}
	return int64(all / 8), nil
}

// clip quotes text from the file so that it stays on one line and short.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return strconv.Quote(s[:cut]) + "..."
	}
	return strconv.Quote(s)
}
