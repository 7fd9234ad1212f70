package compute

// The interfaces below are abilities that a Queue may have beyond its contract. Callers find them by type assertion and keep
// a composed form, which is slower and the oracle, for queues without them.

// Mapper is a Queue whose tensors lie in host memory.
type Mapper interface {
	// Map returns the bytes of t from its first element to its last, gaps of a strided view included. They are the
	// tensor's own memory: reads and writes take effect at once, in order with the queue's operations.
	Map(t Tensor) []byte
}

// Follower is a Queue that can wait for another one of its device without the host.
type Follower interface {
	// Follow lets what is called from now on begin after everything that was called on other so far.
	Follow(other Queue)
}

// Follow orders dq behind other, by the host on queues that are no Followers; what fails on other stays there.
func Follow(dq, other Queue) {
	if f, ok := dq.(Follower); ok {
		f.Follow(other)
		return
	}
	other.Wait()
}

// Matcher finds nearest keys.
type Matcher interface {
	// Match finds for every query the key with the largest dot product among the first lengths[h] (lengths I32 [heads],
	// or absent: all): query [heads, queries, headDim], keys [heads, keys, headDim], any strides, F32 or BF16;
	// best I32 [heads, queries] (-1 without keys) and score F32 [heads, queries], contiguous. Of equal scores the
	// first key wins.
	Match(best, score, query, keys, lengths Tensor)
}

// Sharer is a Queue whose threads do other work of the host, too.
type Sharer interface {
	// Share calls do for every number below n on the threads that the device uses, and returns when all is done. Calls may
	// happen at the same time and in any order; none may use the queue.
	Share(n int, do func(i int))
}

// Share calls do for every number below n, by the threads of queues that are Sharers.
func Share(dq Queue, n int, do func(i int)) {
	if s, ok := dq.(Sharer); ok {
		s.Share(n, do)
		return
	}
	for i := range n {
		do(i)
	}
}

// Scorer multiplies keys by queries.
type Scorer interface {
	// Score writes dot products: dst F32 [heads, keys, queries] with a dense last dimension, query [heads, queries, headDim],
	// keys [heads, keys, headDim], F32 or BF16, the last dimension dense. Sums are float32, in an order that depends on
	// the kernel class only.
	Score(dst, query, keys Tensor)
}

// Profiler is a Queue that can say where a device's time goes.
type Profiler interface {
	// Profile begins to time every launch by itself, without batches. With on false it ends that, waits for the device and returns
	// what was timed, the longest first. A few microseconds of each launch are the cost of looking.
	Profile(on bool) []OpTime
}

// OpTime is what launches of one kind took on a device, together.
type OpTime struct {
	Name    string  `json:"name"`
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
}

// Batcher is a Queue that can start many operations at once, for less than the sum of their costs.
type Batcher interface {
	// BeginBatch lets operations wait until EndBatch, which starts them in order. A batch that equals one from before, with
	// the same tensors, costs least. Results are those of the operations called one by one; Upload, Download and Wait
	// inside a batch start what was called before them. Tensors of a batch must not be freed before its end.
	BeginBatch()
	EndBatch()
}
