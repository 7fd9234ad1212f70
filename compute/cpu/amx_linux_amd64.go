//go:build linux && amd64 && !purego

package cpu

import (
	"sync"
	"syscall"

	"golang.org/x/sys/cpu"

	"longtake/compute"
)

// Linux 5.16 and later hand out the tile registers on request: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
const (
	archReqXcompPerm  = 0x1023
	xfeatureXtiledata = 18
)

// hasAMX asks once; the permission is the whole process's. Without it the first tile instruction would fault.
var hasAMX = sync.OnceValue(func() bool {
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXBF16 || !cpu.X86.HasAVX512BF16 || !cpu.X86.HasAVX512VBMI {
		return false
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, archReqXcompPerm, xfeatureXtiledata, 0)
	return errno == 0
})

//go:noescape
func amxGemm32(args *tileArgs)

//go:noescape
func amxGemm16(args *tileArgs)

//go:noescape
func amxSoftmax(args *softmaxArgs)

// amxClass is avx512 with the products of Linear and Attend in bfloat16 tiles.
var amxClass = newAMXClass()

func newAMXClass() *class {
	c := *avx512Class
	c.name, c.cache, c.panel, c.panelBytes, c.lanes = "amx", compute.BF16, tileSize, pairBytes, []int{32, 16}
	c.pack, c.linear = packPairs, runTiles
	c.tiles = &tileKernels{gemm32: amxGemm32, gemm16: amxGemm16, softmax: amxSoftmax, pairRows: pairRowsAVX512, turnRows: turnRowsAVX512}
	return &c
}
