package outfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Marker is the hidden file that says a folder is the output of an earlier run and may be
// replaced.
const Marker = ".longtake.json"

// Dir is an output folder in the making.
type Dir struct {
	name   string
	temp   string
	merge  bool // the target holds files of others: move ours in one by one
	exists bool
	ours   func(name string) bool
}

// CreateDir makes a hidden folder beside path. The target may be missing, empty, or the output of
// an earlier run (it holds Marker and else only files for which ours is true); then Commit replaces
// it whole. Any other folder is refused, unless overwrite is set: then Commit moves the new files in
// one by one, removes older files for which ours is true, and leaves all else; that move is not
// atomic.
func CreateDir(path string, overwrite bool, ours func(name string) bool) (*Dir, error) {
	path = filepath.Clean(path)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if err := checkParent(path, path); err != nil {
		return nil, err
	}
	d := &Dir{name: path, ours: ours}
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		if info, statErr := os.Stat(path); statErr == nil && !info.IsDir() {
			return nil, fmt.Errorf("create %s: is a file, not a folder", path)
		}
		return nil, wrapCreate(path, err)
	default:
		d.exists = true
		if foreign := d.foreign(entries); foreign != "" {
			if !overwrite {
				return nil, fmt.Errorf("create %s: folder is not empty and not an earlier output of ours (holds %s): name another or allow overwriting",
					path, foreign)
			}
			d.merge = true
		}
	}
	temp := TempName(path)
	if path == "." || path == string(filepath.Separator) {
		return nil, fmt.Errorf("create %s: name a folder of its own for the frames", path)
	}
	if err := os.Mkdir(temp, 0o777); err != nil {
		return nil, wrapCreate(path, err)
	}
	d.temp = temp
	return d, nil
}

// foreign returns the name of a file that an earlier run cannot have left, or "".
func (d *Dir) foreign(entries []fs.DirEntry) string {
	marked := false
	for _, e := range entries {
		switch {
		case e.Name() == Marker:
			marked = true
		case !e.Type().IsRegular() || !d.ours(e.Name()):
			return e.Name()
		}
	}
	if len(entries) > 0 && !marked {
		return entries[0].Name()
	}
	return ""
}

// WriteFile puts one complete file into the folder in the making.
func (d *Dir) WriteFile(name string, data []byte) error {
	if err := os.WriteFile(filepath.Join(d.temp, name), data, 0o666); err != nil {
		return fmt.Errorf("%s: %w", name, cause(err))
	}
	return nil
}

// Commit writes Marker with about in it as JSON and puts the folder in place. On failure the
// temporary folder is removed and, except after a merge broken half-way, the target is as before.
func (d *Dir) Commit(about any) error {
	text, err := json.Marshal(about)
	if err != nil {
		panic("outfile: marker: " + err.Error())
	}
	if err := d.WriteFile(Marker, append(text, '\n')); err != nil {
		d.Abort()
		return err
	}
	if d.merge {
		err = d.moveIn()
	} else {
		err = d.swap()
	}
	if err != nil {
		d.Abort()
		return cause(err)
	}
	return nil
}

// swap puts the finished folder in the place of the older one, if any.
func (d *Dir) swap() error {
	if !d.exists {
		return os.Rename(d.temp, d.name)
	}
	old := TempName(d.name)
	if err := os.Rename(d.name, old); err != nil {
		return err
	}
	if err := os.Rename(d.temp, d.name); err != nil {
		return errors.Join(err, os.Rename(old, d.name))
	}
	return os.RemoveAll(old)
}

func (d *Dir) moveIn() error {
	old, err := os.ReadDir(d.name)
	if err != nil {
		return err
	}
	for _, e := range old {
		if e.Type().IsRegular() && d.ours(e.Name()) {
			if err := os.Remove(filepath.Join(d.name, e.Name())); err != nil {
				return err
			}
		}
	}
	fresh, err := os.ReadDir(d.temp)
	if err != nil {
		return err
	}
	for _, e := range fresh {
		// The folder keeps other people's files, so it must not be marked as replaceable.
		if e.Name() == Marker {
			continue
		}
		if err := os.Rename(filepath.Join(d.temp, e.Name()), filepath.Join(d.name, e.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(d.temp)
}

// Abort removes the temporary folder and all in it.
func (d *Dir) Abort() error {
	return cause(os.RemoveAll(d.temp))
}
