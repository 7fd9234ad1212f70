package synth

import (
	"encoding/binary"
	"encoding/json"
	"io"

	"longtake/compute"
)

// Safetensors writes tensors as a safetensors file.
func Safetensors(w io.Writer, tensors []Tensor, dt compute.DType, seed uint64) error {
	type entry struct {
		DType  string `json:"dtype"`
		Shape  []int  `json:"shape"`
		Offset [2]int `json:"data_offsets"`
	}
	head, at := map[string]entry{}, 0
	for _, t := range tensors {
		n := t.elems() * dt.Size()
		head[t.Name] = entry{map[compute.DType]string{compute.F32: "F32", compute.BF16: "BF16"}[dt], t.Shape, [2]int{at, at + n}}
		at += n
	}
	b, err := json.Marshal(head)
	if err != nil {
		return err
	}
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	if _, err := w.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(b))), b...)); err != nil {
		return err
	}
	for _, t := range tensors {
		if err := t.fill(dt, seed, func(b []byte) error { _, err := w.Write(b); return err }); err != nil {
			return err
		}
	}
	return nil
}
