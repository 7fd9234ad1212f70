package cuda

import "longtake/compute"

// hashArgs mirrors HashArgs in kernels/hash/hash.cu.
type hashArgs struct {
	x, planes, counts, codes, lengths, packed, scales, known uint64
	xHead, xRow                                              int64
	heads, rows, width, bits, words, room, xHalf             uint32
	step                                                     float32
	weak                                                     uint64
	tables, tableBits, probes, levels                        uint32
}

var _ compute.Hasher = (*queue)(nil)

// Hashes says that queues are compute.Hashers.
func (d *Device) Hashes() {}

// addressOr0 is 0 for what is not there.
func addressOr0(t compute.Tensor) uint64 {
	if t.IsZero() || t.Elems() == 0 {
		return 0
	}
	return address(t)
}

// hashCall is what calls share.
func (q *queue) hashCall(x, counts compute.Tensor, room int) *hashArgs {
	if !(x.Rank == 3 && room >= x.Shape[1] && (counts.IsZero() || counts.DType == compute.I32 && counts.Elems() == x.Shape[0])) {
		mismatch("hash", x, counts)
	}
	a := &q.hashArgs
	*a = hashArgs{x: address(x), counts: addressOr0(counts), xHead: int64(x.Stride[0]), xRow: int64(x.Stride[1]), heads: uint32(x.Shape[0]),
		rows: uint32(x.Shape[1]), width: uint32(x.Shape[2]), room: uint32(room), xHalf: half("hash", x)}
	return a
}

// Hash writes signs of projections, see compute.Hasher.
func (q *queue) Hash(codes, weak, lengths, x, planes, counts compute.Tensor, t compute.Tables) {
	if q.err != nil || x.Elems() == 0 {
		return
	}
	bits := planes.Shape[0]
	if !(codes.Rank == 3 && codes.DType == compute.I64 && codes.Contiguous() && codes.Shape[0] == x.Shape[0] && codes.Shape[2] == (bits+63)/64 &&
		(lengths.IsZero() || lengths.Contiguous() && lengths.DType == compute.F32 && lengths.Elems() == x.Shape[0]*codes.Shape[1]) && planes.Rank == 2 && planes.Contiguous() && planes.Shape[1] == x.Shape[2]) {
		mismatch("hash", codes, lengths, x, planes)
	}
	if !weak.IsZero() && !(weak.DType == compute.I64 && weak.Contiguous() && weak.Shape == codes.Shape && fits(t, codes.Shape[2])) {
		mismatch("hash", codes, weak, t)
	}
	a := q.hashCall(x, counts, codes.Shape[1])
	a.weak, a.tables, a.tableBits, a.probes = addressOr0(weak), uint32(t.Count), uint32(t.Bits), uint32(t.Probes)
	a.planes, a.codes, a.lengths, a.bits, a.words = address(planes), address(codes), addressOr0(lengths), uint32(bits), uint32(codes.Shape[2])
	q.launch("hash", q.device.kernels.hash[0], [3]uint32{(a.rows + 63) / 64, a.words, a.heads}, [3]uint32{256, 1, 1}, 0, argument(a))
}

// Quantise rounds to levels, see compute.Hasher.
func (q *queue) Quantise(packed, scales, known, x, counts compute.Tensor, bits int, step float32) {
	if q.err != nil || x.Elems() == 0 {
		return
	}
	if bits != 2 && bits != 4 && bits != 8 {
		mismatch("quantise", x, bits)
	}
	bytes, room := (x.Shape[2]*bits+7)/8, max(packed.Shape[1], known.Shape[1])
	for i, t := range [3]compute.Tensor{packed, scales, known} {
		elems, ok := x.Shape[0]*room*[3]int{bytes, 1, x.Shape[2]}[i], t.DType == [3]compute.DType{compute.U8, compute.F32, compute.F32}[i] || i == 2 && t.DType == compute.BF16
		if !t.IsZero() && !(ok && t.Contiguous() && t.Elems() == elems) {
			mismatch("quantise", packed, scales, known, x)
		}
	}
	a := q.hashCall(x, counts, room)
	a.packed, a.scales, a.known, a.bits, a.step = addressOr0(packed), addressOr0(scales), addressOr0(known), uint32(bits), step
	if known.DType == compute.BF16 && !known.IsZero() {
		a.levels = 1
	}
	q.launch("hash", q.device.kernels.hash[1], [3]uint32{(a.rows + 7) / 8, a.heads, 1}, [3]uint32{256, 1, 1}, 0, argument(a))
}
