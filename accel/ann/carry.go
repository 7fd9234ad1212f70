package ann

import "longtake/compute"

// Carrier copies rows of keys and values [heads, rows, headDim] from one pair of tensors to another, by the host where it reaches
// them (a compute.Mapper), else by the queue.
type Carrier struct {
	dq             compute.Queue
	from, to       [2]compute.Tensor // keys, values
	source, target [2][]byte
	reaches        bool
}

// NewCarrier prepares for copying.
func NewCarrier(dq compute.Queue, toKeys, toValues, fromKeys, fromValues compute.Tensor) Carrier {
	c := Carrier{dq: dq, from: [2]compute.Tensor{fromKeys, fromValues}, to: [2]compute.Tensor{toKeys, toValues}}
	mapper, ok := dq.(compute.Mapper)
	if !ok || fromKeys.DType != toKeys.DType {
		return c
	}
	c.reaches = true
	for i := range c.from {
		c.source[i], c.target[i] = mapper.Map(c.from[i]), mapper.Map(c.to[i])
	}
	return c
}

// Copy moves rows of head h from row from on to row to on.
func (c *Carrier) Copy(h, to, from, rows int) {
	if rows == 0 {
		return
	}
	for i := range c.from {
		dst, src := &c.to[i], &c.from[i]
		if !c.reaches {
			c.dq.Copy(dst.Index(h).Slice(0, to, to+rows), src.Index(h).Slice(0, from, from+rows))
			continue
		}
		size, d := src.DType.Size(), src.Shape[2]
		target := c.target[i][(h*dst.Stride[0]+to*dst.Stride[1])*size:]
		source := c.source[i][(h*src.Stride[0]+from*src.Stride[1])*size:]
		if src.Stride[1] == d && dst.Stride[1] == d {
			copy(target[:rows*d*size], source)
			continue
		}
		for r := range rows {
			copy(target[r*dst.Stride[1]*size:][:d*size], source[r*src.Stride[1]*size:])
		}
	}
}
