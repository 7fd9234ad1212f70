package cuda

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cubinCache keeps compiled kernels on disk, one file an entry: a line of magic, the SHA-256 of the code, the code. Files
// are written beside their place and renamed into it, so processes may share a folder. An empty dir keeps nothing.
type cubinCache struct{ dir string }

// cubinMagic heads every entry; its number changes with the layout.
const cubinMagic = "longtake cubin 1\n"

// errCorrupt is an entry that does not hold what was written.
var errCorrupt = errors.New("corrupt entry")

// defaultCacheDir is os.UserCacheDir()/longtake/cubin, or empty when the system names no cache folder.
func defaultCacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "longtake", "cubin")
}

// cubinKey names an entry by everything that decides the machine code.
func cubinKey(source []byte, options []string, compiler, arch string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d %d", len(source), len(options))
	h.Write(source)
	for _, o := range append(append([]string(nil), options...), compiler, arch) {
		fmt.Fprintf(h, " %d %s", len(o), o)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (c cubinCache) path(key string) string { return filepath.Join(c.dir, key+".cubin") }

// get returns the code, fs.ErrNotExist when there is none, or errCorrupt.
func (c cubinCache) get(key string) ([]byte, error) {
	if c.dir == "" {
		return nil, os.ErrNotExist
	}
	data, err := os.ReadFile(c.path(key))
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(data, []byte(cubinMagic))
	if !ok || len(rest) <= sha256.Size {
		return nil, errCorrupt
	}
	sum := sha256.Sum256(rest[sha256.Size:])
	if !bytes.Equal(sum[:], rest[:sha256.Size]) {
		return nil, errCorrupt
	}
	return rest[sha256.Size:], nil
}

// put stores the code. Losing a race against another process is fine: both write the same bytes.
func (c cubinCache) put(key string, code []byte) error {
	if c.dir == "" {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("keep compiled kernel: %w", err)
	}
	f, err := os.CreateTemp(c.dir, key+".*.tmp")
	if err != nil {
		return fmt.Errorf("keep compiled kernel: %w", err)
	}
	sum := sha256.Sum256(code)
	_, err = f.Write(append(append([]byte(cubinMagic), sum[:]...), code...))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), c.path(key))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("keep compiled kernel: %w", err)
	}
	return nil
}

// mostUsed bounds the list of entries that a process used.
const mostUsed = 64

// used returns the keys of the entries that the last process for an architecture used, as remember wrote them; none where that cannot be read.
func (c cubinCache) used(arch string) (keys []string) {
	if c.dir == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(c.dir, "used."+arch))
	if err != nil || len(data) > 1<<20 {
		return nil
	}
	for _, key := range strings.Fields(string(data)) {
		if b, err := hex.DecodeString(key); err == nil && len(b) == sha256.Size && len(keys) < mostUsed {
			keys = append(keys, key)
		}
	}
	return keys
}

// remember writes the keys that this process used. That it could not costs the next process time only.
func (c cubinCache) remember(arch string, keys []string) {
	if c.dir == "" || len(keys) == 0 || len(keys) > mostUsed {
		return
	}
	slices.Sort(keys)
	if slices.Equal(keys, c.used(arch)) {
		return
	}
	f, err := os.CreateTemp(c.dir, "used.*.tmp")
	if err != nil {
		return
	}
	_, err = f.WriteString(strings.Join(keys, "\n") + "\n")
	if e := f.Close(); err != nil || e != nil || os.Rename(f.Name(), filepath.Join(c.dir, "used."+arch)) != nil {
		os.Remove(f.Name())
	}
}
