package cuda

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

func TestEveryKernelFolderHasSourceAndReadme(t *testing.T) {
	entries, err := os.ReadDir("kernels")
	if err != nil || len(entries) < 9 {
		t.Fatalf("folders: %v, %v", entries, err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join("kernels", e.Name())
		if cu, _ := filepath.Glob(filepath.Join(dir, "*.cu")); len(cu) == 0 {
			t.Errorf("%s has no .cu file", dir)
		}
		readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		if e.Name() == "attend" { // several files and variants, with headings of its own
			continue
		}
		for _, part := range []string{"## Contract", "## Roofline", "## Measured"} {
			if !strings.Contains(string(readme), part) {
				t.Errorf("%s/README.md lacks %q", dir, part)
			}
		}
	}
}

func TestKernelFilesHoldTheFunctionsThatAreLaunched(t *testing.T) {
	for _, f := range new(kernels).files() {
		src, err := source(f.name)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.functions) != len(f.to) {
			t.Errorf("%s: %d functions for %d places", f.name, len(f.functions), len(f.to))
		}
		for _, fn := range f.functions {
			if !regexp.MustCompile(`\b` + fn + `\b`).Match(src) {
				t.Errorf("%s.cu has no %s", f.name, fn)
			}
		}
	}
}

// A kernel that starts early reads what the one before has not yet written unless it waits for it first.
func TestKernelsThatStartEarlyBeginByWaiting(t *testing.T) {
	for _, f := range new(kernels).files() {
		if !f.early {
			continue
		}
		src, err := source(f.name)
		if err != nil {
			t.Fatal(err)
		}
		all := regexp.MustCompile(`__global__`).FindAllIndex(src, -1)
		waiting := regexp.MustCompile(`__global__ void [^{]*\{[\s\\]*begin\(\)[;,]`).FindAllIndex(src, -1)
		if len(all) == 0 || len(all) != len(waiting) {
			t.Errorf("%s.cu: %d of %d kernels begin with begin()", f.name, len(waiting), len(all))
		}
	}
}

// The kernels assert the sizes of their argument structs; Go's must be the same.
func TestArgumentStructsHaveTheSizesOfTheKernels(t *testing.T) {
	for name, size := range map[string]uintptr{"map": unsafe.Sizeof(mapArgs{}), "norm": unsafe.Sizeof(normArgs{}), "rope": unsafe.Sizeof(ropeArgs{}),
		"gather": unsafe.Sizeof(gatherArgs{}), "timeembed": unsafe.Sizeof(timeEmbedArgs{}), "noise": unsafe.Sizeof(noiseArgs{}),
		"linear": unsafe.Sizeof(linearArgs{}), "attendany": unsafe.Sizeof(attendAnyArgs{}), "plan": unsafe.Sizeof(planArgs{}), "select": unsafe.Sizeof(selectArgs{}), "match": unsafe.Sizeof(matchArgs{}), "hash": unsafe.Sizeof(hashArgs{}), "buckets": unsafe.Sizeof(bucketsArgs{}), "join": unsafe.Sizeof(joinArgs{}), "split": unsafe.Sizeof(splitArgs{}), "merge": unsafe.Sizeof(mergeArgs{})} {
		src, err := source(name)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`static_assert\(sizeof\(\w+Args\) == (\d+),`).FindSubmatch(src)
		if m == nil {
			t.Errorf("%s.cu asserts no size", name)
		} else if want, _ := strconv.Atoi(string(m[1])); uintptr(want) != size {
			t.Errorf("%s: the kernel has %d bytes, Go %d", name, want, size)
		}
	}
}

func TestFaultCodesAreTheKernels(t *testing.T) {
	src, err := source("map")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`#define FAULT_\w+ (\d+)u`).FindAllSubmatch(src, -1)
	if len(codes) != len(faults) {
		t.Errorf("%d codes in types.cuh, %d in Go", len(codes), len(faults))
	}
	for _, c := range codes {
		n, _ := strconv.Atoi(string(c[1]))
		if faults[uint32(n)] == "" {
			t.Errorf("code %d has no words", n)
		}
	}
}
