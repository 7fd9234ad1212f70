package cuda

import (
	"runtime"
	"sync"
	"unsafe"
)

// stagingBytes is the size of each of the two pinned buffers through which host data moves.
const stagingBytes = 4 << 20

// staging moves bytes between ordinary host memory and the GPU through two pinned buffers, so that one is filled while the
// other is on the bus. Small transfers lie behind each other in a buffer: the host waits only where one is full and the other has not been
// sent, so the small tensors of a chunk never make it wait for the GPU to come to them.
type staging struct {
	drv    driver
	pinned [2][]byte
	events [2]uintptr // the last transfer of each buffer
	busy   [2]bool
	used   [2]int // bytes
	turn   int
}

func newStaging(drv driver) (*staging, error) {
	s := &staging{drv: drv}
	for i := range s.pinned {
		var err error
		if s.pinned[i], _, err = drv.HostAlloc(stagingBytes); err != nil {
			s.free()
			return nil, err
		}
		if s.events[i], err = drv.NewEvent(false); err != nil {
			s.free()
			return nil, err
		}
	}
	return s, nil
}

func (s *staging) free() {
	for i := range s.pinned {
		if s.busy[i] {
			s.drv.SyncEvent(s.events[i])
		}
		if s.pinned[i] != nil {
			s.drv.HostFree(s.pinned[i])
		}
		if s.events[i] != 0 {
			s.drv.FreeEvent(s.events[i])
		}
	}
	*s = staging{drv: s.drv}
}

// place returns room for some bytes and the buffer it is in. If that whose turn it is has none left it is the other's, once that has been
// transferred.
func (s *staging) place(bytes int) (int, []byte, error) {
	if s.used[s.turn]+bytes > stagingBytes {
		s.turn = 1 - s.turn
		s.used[s.turn] = 0
		if s.busy[s.turn] {
			s.busy[s.turn] = false
			if err := s.drv.SyncEvent(s.events[s.turn]); err != nil {
				return 0, nil, err
			}
		}
	}
	i, at := s.turn, s.used[s.turn]
	s.used[i] += (bytes + 255) &^ 255
	return i, s.pinned[i][at : at+bytes], nil
}

func (s *staging) sent(i int, stream uintptr) error {
	s.busy[i] = true
	return s.drv.Record(s.events[i], stream)
}

// in copies src to the GPU, converting elements of size from to size to on the way (convert may be nil). src may be reused
// on return; the copy is ordered on the stream.
func (s *staging) in(dst uint64, src []byte, from, to int, convert func(dst, src []byte), stream uintptr) error {
	most := stagingBytes / max(from, to)
	for len(src) > 0 {
		n := min(len(src)/from, most)
		i, room, err := s.place(n * to)
		if err != nil {
			return err
		}
		fillPinned(room, src[:n*from], from, to, convert)
		if err := s.drv.CopyIn(dst, unsafe.Pointer(&room[0]), n*to, stream); err != nil {
			return err
		}
		if err := s.sent(i, stream); err != nil {
			return err
		}
		src, dst = src[n*from:], dst+uint64(n*to)
	}
	return nil
}

// fillShare is the least that is worth a goroutine: weights come by the gigabyte, and one core copies 5 of them a second.
const fillShare = 512 << 10

// fillPinned copies or converts src to dst, on several cores when there is much.
func fillPinned(dst, src []byte, from, to int, convert func(dst, src []byte)) {
	if convert == nil {
		convert = func(dst, src []byte) { copy(dst, src) }
	}
	elems := len(src) / from
	parts := min(runtime.GOMAXPROCS(0), 8, max(len(dst)/fillShare, 1))
	if parts == 1 {
		convert(dst, src)
		return
	}
	var all sync.WaitGroup
	for p := range parts {
		lo, hi := elems*p/parts, elems*(p+1)/parts
		all.Go(func() { convert(dst[lo*to:hi*to], src[lo*from:hi*from]) })
	}
	all.Wait()
}

// out copies GPU memory to dst and returns when it is there, after everything else on the stream.
func (s *staging) out(dst []byte, src uint64, stream uintptr) error {
	pending := -1
	var place, from []byte
	for len(dst) > 0 || pending >= 0 {
		i, n := -1, min(len(dst), stagingBytes)
		var room []byte
		if n > 0 {
			var err error
			if i, room, err = s.place(n); err != nil {
				return err
			}
			if err := s.drv.CopyOut(unsafe.Pointer(&room[0]), src, n, stream); err != nil {
				return err
			}
			if err := s.sent(i, stream); err != nil {
				return err
			}
		}
		if pending >= 0 {
			if err := s.drv.SyncEvent(s.events[pending]); err != nil {
				return err
			}
			copy(place, from)
		}
		pending, place, from = i, dst[:n], room
		dst, src = dst[n:], src+uint64(n)
	}
	return nil
}
