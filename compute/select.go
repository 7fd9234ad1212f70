package compute

// SelectingDevice is a Device whose queues are Selectors.
type SelectingDevice interface {
	Device
	// Selects does nothing.
	Selects()
}

// Selector keeps the keys that any query is near to, without the host: the rules of package accel/annca, which has them for queues
// with host memory and is the oracle.
type Selector interface {
	// Select chooses keys and copies them together.
	Select(s Selection)
}

// Selection describes a choice. Every query of every head keeps its Top nearest keys, of equal ones the first; the last Last keys
// are always kept. Kept of any head's query are kept in all heads, in the order of the keys.
type Selection struct {
	// Query [heads, queries, headDim], Keys and Values [heads, keys, headDim], F32 or BF16, headDim at most 256, at most 1024 keys;
	// LogCount F32 [1, keys] or absent.
	Query, Keys, Values, LogCount Tensor
	Top, Last                     int
	// Planes F32 [bits, headDim], at most 512 of them, make near a matter of hashes, as Hasher.MatchCodes has it. Absent, products decide.
	Planes Tensor
	// With Tables keys count only for queries that they share a bucket with. If Top is 0 all of those are kept.
	Tables Tables
	// Bits, 2, 4 or 8, has products of keys as they are known by numbers of that many bits, with levels Step wide, as Hasher.Quantise does.
	Bits int
	Step float32

	// Work space: Codes I64 [heads*(queries+keys)*words], with Tables heads*queries*words more, Norms F32 [heads*keys], Keep I32 [keys]; with Bits
	// Known BF16 [heads*keys*headDim].
	Codes, Norms, Keep, Known Tensor
	// The kept keys and values [heads, room, headDim], contiguous, of the types of Keys and Values, their log counts F32 [1, room]
	// and their number I32 [heads], the same for all.
	ToKeys, ToValues, ToCount, Lengths Tensor
}
