package weights

import (
	"encoding/binary"
	"fmt"
	"math"
)

// This is a machine for the part of Python's pickle that state dictionaries are made of (protocols 2 to 5). It builds plain
// data and never calls anything: the only names it knows are those in torchGlobals, and every other name, and every other
// instruction, is an error.

// The values of the machine besides nil, bool, int64, float64, string and []byte.
type (
	pickleTuple  []any
	pickleList   struct{ items []any }
	pickleDict   struct{ keys, values []any }
	pickleGlobal struct{ module, name string }
	pickleMark   struct{}
	// pickleStorage is a reference to a file of the archive.
	pickleStorage struct {
		typ   string // "BF16"
		key   string
		elems int64
	}
	// pickleTensor is a view of a storage.
	pickleTensor struct {
		storage       pickleStorage
		offset        int64
		shape, stride []int64
	}
)

// maxPickle bounds data.pkl, which holds names and shapes, not numbers; maxStack what is under construction.
const (
	maxPickle = 256 << 20
	maxStack  = 1 << 20
)

// unpickler runs one program.
type unpickler struct {
	in    []byte
	at    int
	stack []any
	memo  map[int]any
	// reduce makes the result of calling a known global; persistent the value of a persistent id.
	reduce     func(f pickleGlobal, args pickleTuple) (any, error)
	persistent func(id any) (any, error)
}

// run returns the program's result. Errors say at which byte it stopped.
func (u *unpickler) run() (result any, err error) {
	u.memo = map[int]any{}
	for {
		if u.at >= len(u.in) {
			return nil, fmt.Errorf("pickle ends at byte %d without a result", u.at)
		}
		start, op := u.at, u.in[u.at]
		u.at++
		if op == '.' {
			v, err := u.pop()
			if err != nil {
				return nil, err
			}
			return v, nil
		}
		if err := u.step(op); err != nil {
			return nil, fmt.Errorf("pickle byte %d: %w", start, err)
		}
		if len(u.stack) > maxStack || len(u.memo) > maxStack {
			return nil, fmt.Errorf("pickle byte %d: more than %d values under construction", start, maxStack)
		}
	}
}

func (u *unpickler) step(op byte) error {
	if done, err := u.stepScalar(op); done || err != nil {
		return err
	}
	if done, err := u.stepMemo(op); done || err != nil {
		return err
	}
	return u.stepObject(op)
}

// stepScalar pushes numbers and text.
func (u *unpickler) stepScalar(op byte) (bool, error) {
	var v any
	var err error
	switch op {
	case 'N':
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		v = op == 0x88
	case 'K': // BININT1
		v, err = u.unsigned(1)
	case 'M': // BININT2
		v, err = u.unsigned(2)
	case 'J': // BININT
		v, err = u.unsigned(4)
		if n, ok := v.(int64); ok {
			v = int64(int32(n))
		}
	case 0x8a: // LONG1
		v, err = u.long()
	case 'G': // BINFLOAT, big-endian
		b, e := u.take(8)
		if err = e; e == nil {
			v = math.Float64frombits(binary.BigEndian.Uint64(b))
		}
	case 'X', 'T', 'B': // BINUNICODE, BINSTRING, BINBYTES
		v, err = u.text(4)
	case 0x8c, 'U', 'C': // SHORT_BINUNICODE, SHORT_BINSTRING, SHORT_BINBYTES
		v, err = u.text(1)
	default:
		return false, nil
	}
	if err == nil {
		u.push(v)
	}
	return true, err
}

// stepMemo handles what is remembered, and the frame of the stream.
func (u *unpickler) stepMemo(op byte) (bool, error) {
	switch op {
	case 0x80: // PROTO
		b, err := u.take(1)
		if err == nil && b[0] > 5 {
			err = fmt.Errorf("protocol %d is not known", b[0])
		}
		return true, err
	case 0x95: // FRAME: its length is of no use here
		_, err := u.take(8)
		return true, err
	case 'q', 'r', 0x94: // BINPUT, LONG_BINPUT, MEMOIZE
		n := int64(len(u.memo))
		var err error
		if op != 0x94 {
			n, err = u.unsigned(map[byte]int{'q': 1, 'r': 4}[op])
		}
		if err == nil && len(u.stack) == 0 {
			err = fmt.Errorf("nothing to remember")
		}
		if err == nil {
			u.memo[int(n)] = u.stack[len(u.stack)-1]
		}
		return true, err
	case 'h', 'j': // BINGET, LONG_BINGET
		n, err := u.unsigned(map[byte]int{'h': 1, 'j': 4}[op])
		v, ok := u.memo[int(n)]
		if err == nil && !ok {
			err = fmt.Errorf("value %d was not remembered", n)
		}
		if err == nil {
			u.push(v)
		}
		return true, err
	}
	return false, nil
}

// stepObject builds containers and the known objects.
func (u *unpickler) stepObject(op byte) error {
	switch op {
	case '(':
		u.push(pickleMark{})
	case '}':
		u.push(&pickleDict{})
	case ']':
		u.push(&pickleList{})
	case ')':
		u.push(pickleTuple{})
	case 't':
		items, err := u.popMark()
		if err != nil {
			return err
		}
		u.push(pickleTuple(items))
	case 0x85, 0x86, 0x87: // TUPLE1 to 3
		n := int(op-0x85) + 1
		if len(u.stack) < n {
			return fmt.Errorf("a tuple of %d needs more values", n)
		}
		u.push(append(pickleTuple(nil), u.popN(n)...))
	case 's', 'u', 'a', 'e':
		return u.extend(op)
	case 'c', 0x93: // GLOBAL, STACK_GLOBAL
		return u.global(op)
	case 'R', 'b', 'Q', 0x81: // REDUCE, BUILD, BINPERSID, NEWOBJ
		return u.object(op)
	default:
		return fmt.Errorf("instruction 0x%02x is not part of a state dictionary: refused", op)
	}
	return nil
}

// extend adds to the container below: SETITEM, SETITEMS, APPEND, APPENDS.
func (u *unpickler) extend(op byte) error {
	var items []any
	switch n := map[byte]int{'s': 2, 'a': 1}[op]; {
	case n == 0:
		var err error
		if items, err = u.popMark(); err != nil {
			return err
		}
	case len(u.stack) < n:
		return fmt.Errorf("nothing to add")
	default:
		items = u.popN(n)
	}
	if len(u.stack) == 0 {
		return fmt.Errorf("nothing to add to")
	}
	switch to := u.stack[len(u.stack)-1].(type) {
	case *pickleDict:
		if len(items)%2 != 0 || op == 'a' || op == 'e' {
			return fmt.Errorf("a dictionary takes pairs")
		}
		for i := 0; i < len(items); i += 2 {
			to.keys, to.values = append(to.keys, items[i]), append(to.values, items[i+1])
		}
	case *pickleList:
		to.items = append(to.items, items...)
	default:
		return fmt.Errorf("cannot add to a %T", to)
	}
	return nil
}

func (u *unpickler) global(op byte) error {
	var module, name string
	if op == 'c' {
		var err error
		if module, err = u.line(); err != nil {
			return err
		}
		if name, err = u.line(); err != nil {
			return err
		}
	} else {
		if len(u.stack) < 2 {
			return fmt.Errorf("a name needs two values")
		}
		v := u.popN(2)
		var ok1, ok2 bool
		module, ok1 = v[0].(string)
		name, ok2 = v[1].(string)
		if !ok1 || !ok2 {
			return fmt.Errorf("a name that is not text")
		}
	}
	g := pickleGlobal{module, name}
	if !torchGlobals[g] {
		return fmt.Errorf("the file names %s.%s, which is not part of a state dictionary: refused, no code of a checkpoint is ever run", clip(module), clip(name))
	}
	u.push(g)
	return nil
}

func (u *unpickler) object(op byte) error {
	if op == 'Q' {
		id, err := u.pop()
		if err != nil {
			return err
		}
		v, err := u.persistent(id)
		if err == nil {
			u.push(v)
		}
		return err
	}
	if len(u.stack) < 2 {
		return fmt.Errorf("an object needs two values")
	}
	v := u.popN(2)
	if op == 'b' { // the state of an object: attributes such as _metadata, of no use here
		u.push(v[0])
		return nil
	}
	f, ok := v[0].(pickleGlobal)
	args, isTuple := v[1].(pickleTuple)
	if !ok || !isTuple {
		return fmt.Errorf("a call of a %T", v[0])
	}
	made, err := u.reduce(f, args)
	if err == nil {
		u.push(made)
	}
	return err
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pop() (any, error) {
	if len(u.stack) == 0 {
		return nil, fmt.Errorf("pickle takes a value that is not there")
	}
	return u.popN(1)[0], nil
}

func (u *unpickler) popN(n int) []any {
	at := len(u.stack) - n
	v := u.stack[at:]
	u.stack = u.stack[:at]
	return v
}

func (u *unpickler) popMark() ([]any, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if _, ok := u.stack[i].(pickleMark); ok {
			items := append([]any(nil), u.stack[i+1:]...)
			u.stack = u.stack[:i]
			return items, nil
		}
	}
	return nil, fmt.Errorf("no mark")
}

func (u *unpickler) take(n int) ([]byte, error) {
	if n < 0 || n > len(u.in)-u.at {
		return nil, fmt.Errorf("%d bytes are missing", n-(len(u.in)-u.at))
	}
	b := u.in[u.at : u.at+n]
	u.at += n
	return b, nil
}

func (u *unpickler) unsigned(bytes int) (int64, error) {
	b, err := u.take(bytes)
	var v int64
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | int64(b[i])
	}
	return v, err
}

// long reads a two's complement number of up to 8 bytes.
func (u *unpickler) long() (int64, error) {
	n, err := u.unsigned(1)
	if err == nil && n > 8 {
		err = fmt.Errorf("a number of %d bytes", n)
	}
	if err != nil || n == 0 {
		return 0, err
	}
	v, err := u.unsigned(int(n))
	unused := 64 - 8*uint(n)
	return v << unused >> unused, err // extends the sign
}

func (u *unpickler) text(lengthBytes int) (string, error) {
	n, err := u.unsigned(lengthBytes)
	if err != nil {
		return "", err
	}
	b, err := u.take(int(n))
	return string(b), err
}

func (u *unpickler) line() (string, error) {
	for i := u.at; i < len(u.in) && i < u.at+4096; i++ {
		if u.in[i] == '\n' {
			s := string(u.in[u.at:i])
			u.at = i + 1
			return s, nil
		}
	}
	return "", fmt.Errorf("a name without an end")
}
