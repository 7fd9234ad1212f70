package cuda

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
)

// fakeTree makes empty files under a new root and returns a search in it. Files whose name holds "broken" do not load; bare
// names load when they are listed as ldconfig.
func fakeTree(t *testing.T, env map[string]string, ldconfig []string, files ...string) (search, *[]string) {
	root := t.TempDir()
	for _, f := range files {
		path := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var opened []string
	s := search{root: root}
	s.getenv = func(name string) string {
		v := env[name]
		if v == "" {
			return ""
		}
		return filepath.Join(root, v)
	}
	s.open = func(path string) (uintptr, error) {
		if !filepath.IsAbs(path) && !slices.Contains(ldconfig, path) {
			return 0, errors.New(path + ": cannot open shared object file: No such file or directory")
		}
		if strings.Contains(path, "broken") {
			return 0, errors.New(path + ": undefined symbol")
		}
		opened = append(opened, strings.TrimPrefix(path, root))
		return 7, nil
	}
	return s, &opened
}

func TestLibrariesAreFoundInTheDocumentedOrder(t *testing.T) {
	toolkit := []string{"usr/local/cuda-13.0/lib64/libcublasLt.so.13", "usr/local/cuda-12.4/lib64/libcublasLt.so.12", "usr/local/lib/python3.12/dist-packages/nvidia/cu13/lib/libcublasLt.so.13"}
	for _, c := range []struct {
		name     string
		env      map[string]string
		ldconfig []string
		files    []string
		lib      library
		want     string
	}{
		{"the environment beats all", map[string]string{librariesEnv: "mine"}, []string{"libcublasLt.so.13"}, append(toolkit, "mine/libcublasLt.so.13"), libCUBLASLt, "/mine/libcublasLt.so.13"},
		{"then the dynamic loader", nil, []string{"libcublasLt.so.12"}, toolkit, libCUBLASLt, "libcublasLt.so.12"},
		{"then the newest toolkit", nil, nil, toolkit, libCUBLASLt, "/usr/local/cuda-13.0/lib64/libcublasLt.so.13"},
		{"an older driver takes the older library", nil, []string{"libcublasLt.so.13"}, toolkit, libCUBLASLt.newest(12040), "/usr/local/cuda-12.4/lib64/libcublasLt.so.12"},
		{"then python packages", nil, nil, toolkit[2:], libCUBLASLt, "/usr/local/lib/python3.12/dist-packages/nvidia/cu13/lib/libcublasLt.so.13"},
		{"of the active environment first", map[string]string{"VIRTUAL_ENV": "venv"}, nil, append(toolkit[2:], "venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12"), libCUBLASLt, "/venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12"},
		{"of the python on the path", map[string]string{"PATH": "opt/torch/.venv/bin"}, nil, []string{"opt/torch/.venv/bin/python3", "opt/torch/.venv/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13"}, libNVRTC, "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13"},
		{"files with longer versions count", nil, nil, []string{"usr/local/cuda/lib64/libnvrtc.so.12.4.127"}, libNVRTC, "/usr/local/cuda/lib64/libnvrtc.so.12.4.127"},
		{"a library that does not load is passed over", nil, nil, []string{"usr/local/cuda-broken/lib64/libnvrtc.so.13", "usr/local/cuda-12/lib64/libnvrtc.so.12"}, libNVRTC, "/usr/local/cuda-12/lib64/libnvrtc.so.12"},
		{"the driver has folders of its own", nil, nil, []string{"usr/local/nvidia/lib64/libcuda.so.1"}, libCUDA, "/usr/local/nvidia/lib64/libcuda.so.1"},
	} {
		s, _ := fakeTree(t, c.env, c.ldconfig, c.files...)
		_, path, err := s.find(c.lib)
		if got := strings.TrimPrefix(path, s.root); err != nil || got != c.want {
			t.Errorf("%s: found %q (%v), want %q", c.name, got, err, c.want)
		}
	}
}

func TestTheCompilersBuiltinsAreOpenedBesideIt(t *testing.T) {
	s, opened := fakeTree(t, nil, nil, "usr/local/cuda/lib64/libnvrtc.so.13", "usr/local/cuda/lib64/libnvrtc-builtins.so.13.0")
	if _, _, err := s.find(libNVRTC); err != nil {
		t.Fatal(err)
	}
	want := []string{"/usr/local/cuda/lib64/libnvrtc-builtins.so.13.0", "/usr/local/cuda/lib64/libnvrtc.so.13"}
	if !slices.Equal(*opened, want) {
		t.Errorf("opened %v, want %v", *opened, want)
	}
}

func TestAMissingLibraryTellsEverythingThatWasTried(t *testing.T) {
	s, _ := fakeTree(t, map[string]string{librariesEnv: "mine"}, nil, "mine/readme", "usr/local/cuda-broken/lib64/libcublasLt.so.13")
	_, _, err := s.find(libCUBLASLt)
	var missing *LibraryError
	if !errors.As(err, &missing) || !errors.Is(err, compute.ErrUnsupported) {
		t.Fatalf("error %v (%T)", err, err)
	}
	for _, want := range []string{"cuda: library cublasLt not found; looked for\n", "/mine/libcublasLt.so.*: no such file",
		"libcublasLt.so.13: cannot open shared object file", "/usr/local/cuda-broken/lib64/libcublasLt.so.13: undefined symbol",
		"/usr/local/cuda*/targets/*/lib: no such folder", "set LONGTAKE_CUDA_LIBS to the folder"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	_, _, err = s.find(libNVRTC.newest(11080))
	if !strings.Contains(err.Error(), "the driver is older than CUDA 12") {
		t.Errorf("old driver: %v", err)
	}
}

func TestErrorsOfTheDriverAreTyped(t *testing.T) {
	oom := &Error{Call: "cuMemAlloc_v2", Code: 2, Text: "CUDA_ERROR_OUT_OF_MEMORY: out of memory"}
	if !errors.Is(oom, compute.ErrNoMemory) || oom.Error() != "cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY: out of memory (2)" {
		t.Errorf("out of memory: %v", oom)
	}
	if errors.Is(&Error{Call: "cublasLtMatmul", Code: 2}, compute.ErrNoMemory) || errors.Is(&Error{Call: "cuInit", Code: 100}, compute.ErrNoMemory) {
		t.Error("other errors count as out of memory")
	}
	if g := (GPU{Name: "NVIDIA H100 80GB HBM3", Major: 9, Memory: 79 << 30}).String(); g != "0: NVIDIA H100 80GB HBM3, compute capability 9.0, 79.0 GiB" {
		t.Errorf("GPU prints as %q", g)
	}
}
