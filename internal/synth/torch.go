package synth

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"longtake/compute"
)

// Torch writes tensors as torch.save does: a zip archive of a pickle (protocol 2) and a raw storage for each tensor. Roots are
// the dictionaries that each hold all the tensors ("generator_ema"); without any the file is a flat state dictionary. Roots
// share their storages, as names that alias each other do in PyTorch.
func Torch(w io.Writer, tensors []Tensor, dt compute.DType, seed uint64, roots ...string) error {
	z := zip.NewWriter(w)
	put := func(name string) (io.Writer, error) {
		return z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
	}
	member, err := put("data.pkl")
	if err != nil {
		return err
	}
	if _, err := member.Write(pickled(tensors, dt, roots)); err != nil {
		return err
	}
	for i, t := range tensors {
		if member, err = put(fmt.Sprintf("data/%d", i)); err != nil {
			return err
		}
		err := t.fill(dt, seed, func(b []byte) error { _, err := member.Write(b); return err })
		if err != nil {
			return err
		}
	}
	if member, err = put("version"); err != nil {
		return err
	}
	if _, err := io.WriteString(member, "3\n"); err != nil {
		return err
	}
	return z.Close()
}

// pickled is the program that builds the dictionaries.
func pickled(tensors []Tensor, dt compute.DType, roots []string) []byte {
	p := &pickler{}
	p.WriteString("\x80\x02}") // protocol 2, a dictionary
	if len(roots) == 0 {
		p.state(tensors, dt)
	}
	for _, root := range roots {
		p.text(root)
		p.WriteString("}")
		p.state(tensors, dt)
		p.WriteString("s")
	}
	p.WriteString(".")
	return p.Bytes()
}

type pickler struct{ bytes.Buffer }

func (p *pickler) text(s string) {
	p.WriteByte('X')
	p.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
	p.WriteString(s)
}

// number writes integers of up to eight bytes (LONG1) or of one (BININT1).
func (p *pickler) number(n int) {
	if n >= 0 && n < 256 {
		p.Write([]byte{'K', byte(n)})
		return
	}
	p.Write([]byte{0x8a, 8})
	p.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func (p *pickler) numbers(v []int) {
	p.WriteByte('(')
	for _, n := range v {
		p.number(n)
	}
	p.WriteByte('t')
}

// state puts the tensors into the dictionary on top of the stack.
func (p *pickler) state(tensors []Tensor, dt compute.DType) {
	class := map[compute.DType]string{compute.F32: "FloatStorage", compute.BF16: "BFloat16Storage"}[dt]
	p.WriteByte('(')
	for i, t := range tensors {
		p.text(t.Name)
		p.WriteString("ctorch._utils\n_rebuild_tensor_v2\n((")
		p.text("storage")
		p.WriteString("ctorch\n" + class + "\n")
		p.text(fmt.Sprint(i))
		p.text("cpu")
		p.number(t.elems())
		p.WriteString("tQ")
		p.number(0)
		p.numbers(t.Shape)
		stride, step := make([]int, len(t.Shape)), 1
		for k := len(t.Shape) - 1; k >= 0; k-- {
			stride[k] = step
			step *= t.Shape[k]
		}
		p.numbers(stride)
		p.WriteString("\x89ccollections\nOrderedDict\n)RtR")
	}
	p.WriteByte('u')
}
