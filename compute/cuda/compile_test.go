//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"strings"
	"testing"
)

// TestKernelsCompile compiles every kernel file and the common attention variants, which takes NVRTC but no GPU: a kernel that no longer
// compiles leaves every machine with a GPU without one.
func TestKernelsCompile(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles every kernel for two architectures: go test ./compute/cuda runs it, without -short")
	}
	compiler, err := openNVRTC(libNVRTC)
	if err != nil {
		t.Skipf("needs NVRTC, but no GPU; step CUDA kernels compile of .ci/run brings one (or point LD_LIBRARY_PATH at it): %v", err)
	}
	for _, arch := range []string{"sm_80", "sm_90a"} {
		d := &Device{modules: &modules{arch: arch}}
		compile := func(name string, src []byte, options []string) {
			t.Run(fmt.Sprintf("%s %s %s", arch, name, strings.Join(options, " ")), func(t *testing.T) {
				t.Parallel()
				options := append([]string{"--gpu-architecture=" + arch, "--std=c++17"}, options...)
				if _, err := compiler.Compile(name+".cu", src, options, false); err != nil {
					t.Error(err)
				}
			})
		}
		done := map[string]bool{}
		for _, f := range new(kernels).files() {
			if key := f.name + strings.Join(f.options, " "); done[key] {
				continue
			} else {
				done[key] = true
			}
			src, err := source(f.name)
			if err != nil {
				t.Fatal(err)
			}
			compile(f.name, src, f.options)
		}
		for pair := range 2 {
			src, err := source("attendany")
			if err != nil {
				t.Fatal(err)
			}
			compile("attendany", src, []string{define("HEAD_DIM", 64), define("PAIR", pair)})
		}
		for _, v := range []attendVariant{
			{headDim: 128, blockKeys: 160}, {headDim: 128, blockKeys: 160, ragged: true}, {headDim: 64, blockKeys: 160},
			{headDim: 128, blockKeys: 128, bias: true, ragged: true}, {headDim: 128, blockKeys: 128, bias: true, float: true},
			{headDim: 128, blockKeys: 128, listTile: 64}, {headDim: 128, few: 32, bias: true}, {headDim: 64, few: 64, ragged: true}, {headDim: 128, blockKeys: 128, listTile: 128, bias: true, byTile: true},
		} {
			name, src, options, err := d.attendSource(v)
			if err != nil {
				t.Fatal(err)
			}
			compile(name, src, options)
		}
	}
}
