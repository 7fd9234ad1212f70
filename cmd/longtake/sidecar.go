package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sidecarPath is where the record of a video lies: beside it, with ".json" added. It is "" for outputs that are no files
// (standard output, pipes, devices).
func sidecarPath(output string) (string, error) {
	if output == "-" {
		return "", nil
	}
	if strings.EqualFold(filepath.Ext(output), ".png") {
		output = filepath.Dir(output) // a folder and a pattern
	}
	output = filepath.Clean(output)
	if info, err := os.Stat(output); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return "", nil
	}
	path := output + ".json"
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return "", usagef("%s, where the record of the video belongs, is not a regular file", path)
	}
	return path, nil
}

// sidecar is a record that waits beside its place under a hidden name.
type sidecar struct{ temp, path string }

// prepareSidecar writes the record to the disk. With an empty path it does nothing.
func prepareSidecar(path string, r *record) (*sidecar, error) {
	if path == "" {
		return &sidecar{}, nil
	}
	dir, name := filepath.Split(path)
	s := &sidecar{filepath.Join(dir, "."+name+"."+rand.Text()[:8]+".part"), path}
	err := s.write(r.json())
	if err != nil {
		s.abort()
		return nil, fmt.Errorf("write %s: %w", path, cause(err))
	}
	return s, nil
}

func (s *sidecar) write(b []byte) error {
	f, err := os.OpenFile(s.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// commit puts the record in its place. If that fails an older record is removed, for it would describe another video.
func (s *sidecar) commit() error {
	if s.temp == "" {
		return nil
	}
	if err := os.Rename(s.temp, s.path); err != nil {
		s.abort()
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove outdated %s: %w", s.path, cause(err))
		}
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	s.temp = ""
	return nil
}

// abort removes what commit has not put in its place.
func (s *sidecar) abort() {
	if s.temp != "" {
		os.Remove(s.temp)
	}
}
