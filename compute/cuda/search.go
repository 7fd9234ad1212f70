package cuda

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// librariesEnv names folders (separated as in PATH) that are searched before anything else.
const librariesEnv = "LONGTAKE_CUDA_LIBS"

// library is one shared library and how its file is named.
type library struct {
	name   string // cuda, nvrtc, cublasLt
	majors []int  // CUDA major versions served, newest first; the driver's own library has version 1
}

var (
	libCUDA     = library{"cuda", []int{1}}
	libNVRTC    = library{"nvrtc", []int{13, 12}}
	libCUBLASLt = library{"cublasLt", []int{13, 12}}
)

// newest drops the major versions that the driver is too old for. driver is as cuDriverGetVersion gives it, 13000.
func (l library) newest(driver int) library {
	l.majors = slices.DeleteFunc(slices.Clone(l.majors), func(m int) bool { return m > driver/1000 })
	return l
}

// search finds libraries; its fields stand in for the system in tests.
type search struct {
	root   string                             // put before absolute folders
	getenv func(string) string                // os.Getenv
	open   func(path string) (uintptr, error) // dlopen; a bare name asks the dynamic loader
}

// find opens the first library that loads, in the order: LONGTAKE_CUDA_LIBS, the dynamic loader's own search (ldconfig,
// LD_LIBRARY_PATH), the folders of the toolkit and the driver, Python packages (site-packages/nvidia/*/lib). It returns the
// handle and the path; the error is a *LibraryError with everything tried.
func (s search) find(l library) (uintptr, string, error) {
	e := &LibraryError{Library: l.name}
	try := func(path string) (uintptr, bool) {
		s.preload(path)
		h, err := s.open(path)
		if err != nil {
			e.Attempts = append(e.Attempts, Attempt{path, strings.TrimPrefix(err.Error(), path+": ")})
		}
		return h, err == nil
	}
	if len(l.majors) == 0 {
		e.Attempts = append(e.Attempts, Attempt{"lib" + l.name, "the driver is older than CUDA 12"})
	}
	env := s.getenv(librariesEnv)
	for _, dir := range filepath.SplitList(env) {
		for _, path := range s.inFolder(l, dir, e) {
			if h, ok := try(path); ok {
				return h, path, nil
			}
		}
	}
	for _, m := range l.majors {
		name := l.file(m)
		if h, ok := try(name); ok {
			return h, name, nil
		}
	}
	for _, pattern := range s.folders(l) {
		dirs, _ := filepath.Glob(pattern)
		if len(dirs) == 0 {
			e.Attempts = append(e.Attempts, Attempt{pattern, "no such folder"})
		}
		slices.SortFunc(dirs, func(a, b string) int { return strings.Compare(b, a) }) // cuda-13.0 before cuda-12.4
		for _, dir := range dirs {
			for _, path := range s.inFolder(l, dir, e) {
				if h, ok := try(path); ok {
					return h, path, nil
				}
			}
		}
	}
	return 0, "", e
}

// file is the name that the dynamic loader knows.
func (l library) file(major int) string { return "lib" + l.name + ".so." + strconv.Itoa(major) }

// inFolder lists the library's files in dir, newest version first, and notes the absence of any.
func (s search) inFolder(l library, dir string, e *LibraryError) []string {
	var found []string
	for _, m := range l.majors {
		exact := filepath.Join(dir, l.file(m))
		if _, err := os.Stat(exact); err == nil {
			found = append(found, exact)
			continue
		}
		longer, _ := filepath.Glob(exact + ".*")
		slices.Reverse(longer)
		found = append(found, longer...)
	}
	if len(found) == 0 {
		e.Attempts = append(e.Attempts, Attempt{filepath.Join(dir, "lib"+l.name+".so.*"), "no such file"})
	}
	return found
}

// folders lists patterns of folders in which the library may lie.
func (s search) folders(l library) []string {
	if l.name == libCUDA.name {
		return s.under("/usr/local/nvidia/lib64", "/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib")
	}
	dirs := s.under("/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib", "/opt/cuda/lib64")
	for _, python := range s.pythons() {
		dirs = append(dirs, filepath.Join(python, "nvidia", "*", "lib"))
	}
	return dirs
}

func (s search) under(paths ...string) []string {
	for i, p := range paths {
		paths[i] = filepath.Join(s.root, p)
	}
	return paths
}

// pythons lists patterns of site-packages folders: of the active environment, of the python3 on the PATH, of the system and
// of the user.
func (s search) pythons() []string {
	var dirs []string
	add := func(prefix string) {
		for _, lib := range []string{"lib", "lib64"} {
			for _, site := range []string{"site-packages", "dist-packages"} {
				p := filepath.Join(prefix, lib, "python3*", site)
				if m, _ := filepath.Glob(p); len(m) > 0 && !slices.Contains(dirs, p) {
					dirs = append(dirs, p)
				}
			}
		}
	}
	for _, env := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if v := s.getenv(env); v != "" {
			add(v)
		}
	}
	for _, dir := range filepath.SplitList(s.getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "python3")); err == nil {
			add(filepath.Dir(dir))
		}
	}
	add(filepath.Join(s.root, "/usr/local"))
	add(filepath.Join(s.root, "/usr"))
	if home := s.getenv("HOME"); home != "" {
		add(filepath.Join(home, ".local"))
	}
	return dirs
}

// preload opens the built-in functions beside an NVRTC given by path: NVRTC asks the dynamic loader for them by bare name,
// which fails where its folder is not in the loader's list. A failure shows when NVRTC compiles.
func (s search) preload(path string) {
	dir, file := filepath.Split(path)
	if dir == "" || !strings.HasPrefix(file, "libnvrtc.so") {
		return
	}
	builtins, _ := filepath.Glob(filepath.Join(dir, "libnvrtc-builtins.so.*"))
	if len(builtins) > 0 {
		s.open(builtins[len(builtins)-1])
	}
}
