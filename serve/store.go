package serve

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"longtake/api"
)

// Store keeps the files of a server in one folder that nothing can lead out of: logs/, recordings/ and videos/. Callers of the
// server never name files, only ids.
type Store struct {
	root *os.Root

	mu         sync.Mutex
	recordings map[string]*recording
}

// Folders of a store, and how many files of each are kept, the newest.
var folders = map[string]int{"logs": 500, "recordings": 100, "videos": 100}

// maxFolderBytes bounds each folder.
const maxFolderBytes = 4 << 30

// OpenStore opens the folder dir and makes what is missing in it.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	for name := range folders {
		if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			root.Close()
			return nil, err
		}
	}
	return &Store{root: root, recordings: map[string]*recording{}}, nil
}

// Close closes the folder.
func (s *Store) Close() error { return s.root.Close() }

var errNoStore = &FullError{"the server keeps no files", time.Hour}

// idPattern is the grammar of ids: what they may be, they can name a file.
var idPattern = regexp.MustCompile(`^(ses|vid|rec)_[a-z2-7]{26}$`)

func validID(id string) bool { return idPattern.MatchString(id) }

// path returns the place of an id's file.
func (s *Store) path(folder, id, ext string) (string, error) {
	if s == nil {
		return "", errNoStore
	}
	if !validID(id) {
		return "", fmt.Errorf("id %.40q is none of ours", id)
	}
	return folder + "/" + id + ext, nil
}

// create makes a file that was not there.
func (s *Store) create(folder, id, ext string) (*os.File, error) {
	name, err := s.path(folder, id, ext)
	if err != nil {
		return nil, err
	}
	s.prune(folder)
	return s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// open reads a file.
func (s *Store) open(folder, id, ext string) (*os.File, error) {
	name, err := s.path(folder, id, ext)
	if err != nil {
		return nil, err
	}
	return s.root.Open(name)
}

// remove deletes a file, if it is there.
func (s *Store) remove(folder, id, ext string) {
	if name, err := s.path(folder, id, ext); err == nil {
		_ = s.root.Remove(name)
	}
}

// publish gives a finished file its name: id.part becomes id.
func (s *Store) publish(folder, id, ext string) error {
	name, err := s.path(folder, id, ext)
	if err != nil {
		return err
	}
	return s.root.Rename(name+".part", name)
}

// prune removes the oldest files beyond the bounds of a folder, to make room for one more.
func (s *Store) prune(folder string) {
	entries, err := fs.ReadDir(s.root.FS(), folder)
	if err != nil {
		return
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var bytes int64
	for i, f := range files {
		bytes += f.Size()
		// What changed a moment ago is being written.
		if (i >= folders[folder]-1 || bytes > maxFolderBytes) && time.Since(f.ModTime()) > time.Minute {
			_ = s.root.Remove(folder + "/" + f.Name())
		}
	}
}

// log opens the event log of a session; without a store it returns nil.
func (s *Store) log(id string) (io.WriteCloser, error) {
	if s == nil {
		return nil, nil
	}
	f, err := s.create("logs", id, ".jsonl")
	if err != nil {
		return nil, err
	}
	return f, nil
}

// recording returns a recording of this run of the server.
func (s *Store) recording(id string) (*recording, bool) {
	if s == nil {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.recordings[id]
	return r, ok
}

// keep remembers a recording, and forgets old ones beyond the bound.
func (s *Store) keep(r *recording) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recordings[r.id] = r
	for id, old := range s.recordings {
		if len(s.recordings) <= folders["recordings"] {
			break
		}
		if old.describe().Status != "recording" {
			delete(s.recordings, id)
		}
	}
}

// withoutPaths takes names of files off an error that goes to callers.
func withoutPaths(err error) *api.Error {
	var path *fs.PathError
	text := "the file could not be written"
	if errors.As(err, &path) {
		text += ": " + strings.TrimSpace(path.Err.Error())
	}
	return &api.Error{Type: api.Internal, Message: text}
}
