// Package outfile makes output files and folders appear whole or not at all.
//
// What enters: a target path and bytes. What leaves: after Commit the target holds all bytes;
// after Abort it is as it was before. The work happens under a hidden name in the same folder, so
// that the final rename stays on one file system and is atomic. Errors never show the temporary name:
// those of Create and CreateDir name the target, those of the methods hold the cause alone, for the
// caller says what was being written.
package outfile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// File is an output file in the making. It is an io.WriteSeeker.
type File struct {
	target string // symbolic links resolved
	temp   string // empty when writing straight to a pipe or device
	f      *os.File
}

// Create opens the hidden temporary file for path. An existing regular file at path is left alone
// until Commit. A symbolic link is followed. If path is a pipe or a device it is opened as it is
// and written directly: such an output cannot be taken back. Errors: the folder is missing or not
// writable, path is a folder.
func Create(path string) (*File, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, fmt.Errorf("create %s: is a folder", path)
	case err == nil && !info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, wrapCreate(path, err)
		}
		return &File{f: f}, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, wrapCreate(path, err)
	}
	target := path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		target = real
	}
	if err := checkParent(path, target); err != nil {
		return nil, err
	}
	temp := TempName(target)
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, wrapCreate(path, err)
	}
	return &File{target: target, temp: temp, f: f}, nil
}

// TempName returns an unused hidden name beside target that keeps target's extension, which some
// programs need to tell the format: "dir/clip.mp4" becomes "dir/.clip.1f3a9c0b.part.mp4".
func TempName(target string) string {
	dir, file := filepath.Split(target)
	ext := filepath.Ext(file)
	var random [4]byte
	rand.Read(random[:]) // crypto/rand never fails
	return filepath.Join(dir, "."+strings.TrimSuffix(file, ext)+"."+hex.EncodeToString(random[:])+".part"+ext)
}

// Direct reports whether bytes go straight to a pipe or device.
func (o *File) Direct() bool { return o.temp == "" }

// Temp returns the name of the temporary file, for a program that writes it by itself.
func (o *File) Temp() string { return o.temp }

// Write appends p.
func (o *File) Write(p []byte) (int, error) {
	n, err := o.f.Write(p)
	return n, cause(err)
}

// Seek moves the write position, to patch a header; it fails on a pipe.
func (o *File) Seek(offset int64, whence int) (int64, error) {
	n, err := o.f.Seek(offset, whence)
	return n, cause(err)
}

// Commit flushes the file to the disk and gives it its name, replacing an older file of that name
// in one step. When it fails, the temporary file is removed and the older file is untouched.
func (o *File) Commit() error {
	if o.Direct() {
		return cause(o.f.Close())
	}
	// Other names of the same file may have been written through (ffmpeg): fsync works on the
	// inode, so syncing this handle covers them.
	err := o.f.Sync()
	if closeErr := o.f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(o.temp, o.target)
	}
	if err != nil {
		os.Remove(o.temp)
		return cause(err)
	}
	return nil
}

// Abort removes the temporary file.
func (o *File) Abort() error {
	o.f.Close()
	if o.Direct() {
		return nil
	}
	if err := os.Remove(o.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cause(err)
	}
	return nil
}

// Stream is a File over a writer that is already open, such as standard output; Commit and Abort
// do not close it, for the caller owns it.
type Stream struct{ io.Writer }

// Write passes p on.
func (s Stream) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	return n, cause(err)
}

// Commit does nothing.
func (s Stream) Commit() error { return nil }

// Abort does nothing: what was written cannot be taken back.
func (s Stream) Abort() error { return nil }

func checkParent(path, target string) error {
	dir := filepath.Dir(target)
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create %s: folder %s: %w", path, dir, fs.ErrNotExist)
	}
	if err != nil {
		return wrapCreate(path, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("create %s: %s is not a folder", path, dir)
	}
	return nil
}

func wrapCreate(path string, err error) error {
	return fmt.Errorf("create %s: %w", path, cause(err))
}

// cause takes off the temporary file's name that an *fs.PathError or *os.LinkError carries.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	var linkErr *os.LinkError
	if errors.As(err, &linkErr) {
		return linkErr.Err
	}
	return err
}
