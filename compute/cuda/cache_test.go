package cuda

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestCacheKeysDependOnEverythingThatDecidesTheCode(t *testing.T) {
	first := cubinKey([]byte("src"), []string{"-a", "-b"}, "13.0", "sm_90a")
	if first != cubinKey([]byte("src"), []string{"-a", "-b"}, "13.0", "sm_90a") || len(first) != 64 {
		t.Errorf("key %q is not stable", first)
	}
	for i, other := range []string{
		cubinKey([]byte("src2"), []string{"-a", "-b"}, "13.0", "sm_90a"),
		cubinKey([]byte("src"), []string{"-a -b"}, "13.0", "sm_90a"),
		cubinKey([]byte("src"), []string{"-a"}, "13.0", "sm_90a"),
		cubinKey([]byte("src"), []string{"-a", "-b"}, "12.9", "sm_90a"),
		cubinKey([]byte("src"), []string{"-a", "-b"}, "13.0", "sm_80"),
		cubinKey([]byte("src"), []string{"-b", "-a"}, "13.0", "sm_90a"),
	} {
		if other == first {
			t.Errorf("change %d does not change the key", i)
		}
	}
}

func TestCacheReturnsWhatWasStoredAndNoticesDamage(t *testing.T) {
	c := cubinCache{filepath.Join(t.TempDir(), "new", "folder")}
	if _, err := c.get("k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty cache: %v", err)
	}
	code := bytes.Repeat([]byte("cubin"), 1000)
	if err := c.put("k", code); err != nil {
		t.Fatal(err)
	}
	if got, err := c.get("k"); err != nil || !bytes.Equal(got, code) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	whole, _ := os.ReadFile(c.path("k"))
	for name, damaged := range map[string][]byte{
		"cut":        whole[:len(whole)-7],
		"one bit":    append(append([]byte(nil), whole[:200]...), append([]byte{whole[200] ^ 4}, whole[201:]...)...),
		"empty":      nil,
		"other file": []byte("not a cubin"),
		"only magic": whole[:len(cubinMagic)+32],
	} {
		os.WriteFile(c.path("k"), damaged, 0o644)
		if _, err := c.get("k"); err != errCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
	left, _ := filepath.Glob(filepath.Join(c.dir, "*.tmp"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCacheEntriesAreWholeWhileOthersWrite(t *testing.T) {
	c := cubinCache{t.TempDir()}
	code := bytes.Repeat([]byte{7}, 1<<16)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				if err := c.put("k", code); err != nil {
					t.Error(err)
				}
				if got, err := c.get("k"); err != nil || len(got) != len(code) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestKernelsAreCompiledOnceAndAgainWhenTheEntryIsCorrupt(t *testing.T) {
	dir := t.TempDir()
	open := func() (*fakeCompiler, []string) {
		var lines []string
		c := &fakeCompiler{archs: []int{80, 90}}
		if _, err := newDevice(newFakeGPU(), c, Options{CacheDir: dir, Progress: func(l string) { lines = append(lines, l) }}); err != nil {
			t.Fatal(err)
		}
		return c, lines
	}
	c, lines := open()
	files := map[string]bool{}
	for _, f := range new(kernels).files() {
		files[f.name+strings.Join(f.options, " ")] = true
	}
	if len(c.compiled) != len(files) || len(lines) != len(files) || !strings.HasPrefix(lines[0], "compiling ") || !strings.HasSuffix(lines[0], ".cu for sm_90a") {
		t.Errorf("first start compiled %v and said %q", c.compiled, lines)
	}
	if c, lines := open(); len(c.compiled) != 0 || len(lines) != 0 {
		t.Errorf("second start compiled %v and said %q", c.compiled, lines)
	}
	entries, _ := filepath.Glob(filepath.Join(dir, "*.cubin"))
	os.WriteFile(entries[0], []byte("garbage"), 0o644)
	c, lines = open()
	if len(c.compiled) != 1 || len(lines) != 1 || !strings.HasSuffix(lines[0], "(cached code unusable: corrupt entry)") {
		t.Errorf("after damage: compiled %v and said %q", c.compiled, lines)
	}
	// Whole, but not what the driver takes: say, written by a faulty compiler.
	key := strings.TrimSuffix(filepath.Base(entries[1]), ".cubin")
	if err := (cubinCache{dir}).put(key, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if c, lines = open(); len(c.compiled) != 1 || !strings.Contains(lines[0], "CUDA_ERROR_INVALID_IMAGE") {
		t.Errorf("after nonsense: compiled %v and said %q", c.compiled, lines)
	}
	if c, _ = open(); len(c.compiled) != 0 {
		t.Errorf("the entry was not repaired: compiled %v", c.compiled)
	}
}

func TestAFolderThatCannotBeWrittenOnlyCostsTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o644)
	var lines []string
	_, err := newDevice(newFakeGPU(), &fakeCompiler{}, Options{CacheDir: filepath.Join(file, "sub"), Progress: func(l string) { lines = append(lines, l) }})
	if err != nil || !strings.Contains(strings.Join(lines, "\n"), "keep compiled kernel: ") {
		t.Errorf("%v; said %q", err, lines)
	}
}

func TestCompilationFailuresNameTheFile(t *testing.T) {
	_, err := newDevice(newFakeGPU(), &fakeCompiler{fail: errors.New("compile norm.cu: syntax error")}, Options{CacheDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "compile norm.cu: syntax error") {
		t.Errorf("%v", err)
	}
}

func TestTargetsFollowTheGPUAndTheCompiler(t *testing.T) {
	for _, c := range []struct {
		major, minor int
		supported    []int
		arch         string
		ptx          bool
	}{
		{9, 0, []int{75, 80, 90, 100}, "sm_90a", false},
		{9, 0, nil, "sm_90a", false},
		{8, 9, []int{80, 86, 89, 90}, "sm_89", false},
		{12, 1, []int{80, 90, 120}, "compute_120", true},
		{9, 0, []int{80, 86}, "compute_86", true},
		{9, 0, []int{70, 75}, "", false},
	} {
		arch, ptx, err := target(c.major, c.minor, c.supported)
		if arch != c.arch || ptx != c.ptx || (err == nil) != (c.arch != "") {
			t.Errorf("%d.%d with %v: %q %v %v, want %q %v", c.major, c.minor, c.supported, arch, ptx, err, c.arch, c.ptx)
		}
	}
}

// TestTheNextProcessLoadsWhatThisOneCameToUse: variants are loaded at the start then, while the GPU has nothing to do.
func TestTheNextProcessLoadsWhatThisOneCameToUse(t *testing.T) {
	dir := t.TempDir()
	open := func() (*Device, *fakeCompiler) {
		c := &fakeCompiler{}
		d, err := newDevice(newFakeGPU(), c, Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return d, c
	}
	d, _ := open()
	usual := len(d.modules.loaded)
	if _, _, err := d.convKernel(convVariant{block: 64}); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d, c := open()
	if len(d.modules.loaded) != usual+1 || len(c.compiled) != 0 {
		t.Errorf("%d modules at the second start, %d at the first; compiled %v", len(d.modules.loaded), usual, c.compiled)
	}
	d.Close() // without asking for the variant
	d, _ = open()
	if len(d.modules.loaded) != usual {
		t.Errorf("%d modules at the third start, though the second process did not use more than %d", len(d.modules.loaded), usual)
	}
	d.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "used.*"))
	if len(files) != 1 {
		t.Fatalf("lists %v", files)
	}
	os.WriteFile(files[0], []byte("../../x\n"+strings.Repeat("0", 64)+"\nzz"), 0o644)
	d, _ = open()
	if len(d.modules.loaded) != usual {
		t.Errorf("%d modules after a list of nonsense, want %d", len(d.modules.loaded), usual)
	}
	d.Close()
}
