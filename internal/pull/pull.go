// Package pull brings the files of a model from a folder or a web server into a store of the user's own.
//
// A file is taken by what it must be (File: name, length, SHA-256), never by what its source says. What has arrived stays in a hidden
// folder of the store until every file is whole and equals its digest; then the folder gets its name in one move. A pull that was
// cut off goes on where it ended. See docs/design/0008-pull.md.
package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// File is what a file must be. Bytes is 0 where the length is not known beforehand; then at most MaxBytes are taken.
type File struct {
	Name   string
	Bytes  int64
	SHA256 string // 64 small hexadecimal digits
}

// MaxBytes bounds a file whose length is not known.
const MaxBytes = 64 << 30

func (f File) most() int64 {
	if f.Bytes > 0 {
		return f.Bytes
	}
	return MaxBytes
}

// Source has the files of models.
type Source interface {
	// Open returns a model's file from byte `from` on, or from its beginning where the source cannot do that.
	Open(ctx context.Context, model, name string, from int64) (*Body, error)
	// String names the source for people, without secrets.
	String() string
}

// Body is a file, or the end of one.
type Body struct {
	io.ReadCloser
	At    int64 // its first byte's place in the file
	Total int64 // the length that the source tells of the whole file; 0: none. For progress alone
}

// ErrHere is returned when the store has the model already, every file as it must be.
var ErrHere = errors.New("the model is there already")

// Progress hears of every piece of a file: the bytes that are there, of total (0: not known).
type Progress func(name string, there, total int64)

// Into brings a model's files to the folder store/model. Files and model have plain names (PlainName). With replace a folder
// of that name that holds something else is replaced at the end; without, it is an error.
func Into(ctx context.Context, store, model string, files []File, from Source, replace bool, tell Progress) error {
	for _, f := range files {
		if !PlainName(f.Name) || len(f.SHA256) != 2*sha256.Size {
			return fmt.Errorf("file %.80q with SHA-256 %.80q: a plain name and 64 digits are wanted", f.Name, f.SHA256)
		}
	}
	if !PlainName(model) || len(files) == 0 {
		return fmt.Errorf("model %.80q of %d files: a plain name and files are wanted", model, len(files))
	}
	if err := os.MkdirAll(store, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(store)
	if err != nil {
		return err
	}
	defer root.Close()
	if here, err := whole(root, model, files); err != nil {
		return err
	} else if here {
		return ErrHere
	}
	if _, err := root.Lstat(model); err == nil && !replace {
		return fmt.Errorf("%s holds another %s: remove it, or replace it with --force", store, model)
	}
	part := ".pull-" + model
	if err := root.Mkdir(part, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	p := &puller{root: root, store: store, model: model, part: part, from: from, tell: tell}
	for _, f := range files {
		if err := p.file(ctx, f); err != nil {
			return err
		}
	}
	if replace {
		if err := root.RemoveAll(model); err != nil {
			return err
		}
	}
	return root.Rename(part, model)
}

// whole reports whether all files of a model are there as they must be.
func whole(root *os.Root, model string, files []File) (bool, error) {
	for _, f := range files {
		file, err := root.Open(model + "/" + f.Name)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, io.LimitReader(file, f.most()+1))
		file.Close()
		if err != nil || digest(sum) != f.SHA256 {
			return false, err
		}
	}
	return true, nil
}

func digest(h hash.Hash) string { return fmt.Sprintf("%x", h.Sum(nil)) }

// puller is a pull in work.
type puller struct {
	root               *os.Root
	store, model, part string
	from               Source
	tell               Progress
}

// file brings one file into the hidden folder, or leaves it there if it is whole.
func (p *puller) file(ctx context.Context, f File) (err error) {
	path := p.part + "/" + f.Name
	dst, err := p.root.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	sum := sha256.New()
	there, err := io.Copy(sum, io.LimitReader(dst, f.most()+1))
	if err != nil {
		return err
	}
	if there > 0 && digest(sum) == f.SHA256 {
		p.told(f, there, there)
		return nil
	}
	if there >= f.most() { // as long as it must be, and not it
		there = 0
	}
	if there, err = p.take(ctx, dst, sum, f, there); err != nil {
		return p.explain(err, f, there)
	}
	if got := digest(sum); got != f.SHA256 {
		return errors.Join(fmt.Errorf("%s/%s from %s has SHA-256 %s, wanted is %s: it is another file, or was damaged; nothing was kept of it", p.model, f.Name, p.from, got, f.SHA256),
			dst.Truncate(0))
	}
	return dst.Sync()
}

// target is a file that is written to.
type target interface {
	io.WriteSeeker
	Truncate(int64) error
}

// take writes what the source has behind the bytes that are there, and returns how many are there then.
func (p *puller) take(ctx context.Context, dst target, sum hash.Hash, f File, there int64) (int64, error) {
	body, err := p.from.Open(ctx, p.model, f.Name, there)
	if err != nil {
		return there, err
	}
	defer body.Close()
	at, total := body.At, max(f.Bytes, body.Total)
	if at != there || there == 0 {
		at = 0
		sum.Reset()
		if err := dst.Truncate(0); err != nil {
			return there, err
		}
	}
	if _, err := dst.Seek(at, io.SeekStart); err != nil {
		return at, err
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := body.Read(buf)
		if at+int64(n) > f.most() {
			return at, fmt.Errorf("%s has more than the %d bytes that it must have", f.Name, f.most())
		}
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return at, err
			}
			sum.Write(buf[:n])
			at += int64(n)
			p.told(f, at, total)
		}
		switch {
		case err == io.EOF && f.Bytes > 0 && at < f.Bytes:
			return at, io.ErrUnexpectedEOF
		case err == io.EOF:
			return at, nil
		case err != nil:
			return at, err
		case ctx.Err() != nil:
			return at, ctx.Err()
		}
	}
}

func (p *puller) told(f File, there, total int64) {
	if p.tell != nil {
		p.tell(f.Name, there, total)
	}
}

// explain says what to do about an error.
func (p *puller) explain(err error, f File, there int64) error {
	name := p.model + "/" + f.Name
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("pull %s: %w; %d bytes are kept, the same command goes on", name, err, there)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("pull %s: no space left in %s after %d of %d bytes: make room, then the same command goes on", name, p.store, there, f.Bytes)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("pull %s: %s ended after %d of %d bytes; the same command goes on", name, p.from, there, f.Bytes)
	}
	return fmt.Errorf("pull %s: %w; %d bytes are kept, the same command goes on", name, err, there)
}

// PlainName reports whether a name is safe for a file or folder everywhere: letters, digits, "-", "_" and ".", not first a ".".
func PlainName(name string) bool {
	for i, r := range name {
		plain := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		if !plain && (i == 0 || r != '-' && r != '_' && r != '.') {
			return false
		}
	}
	return name != "" && len(name) <= 128
}
