//go:build nocuda

package main

import (
	"fmt"

	"longtake/compute"
)

// errNoCUDA stands where package cuda would be, so that nothing of it is in the binary.
var errNoCUDA = fmt.Errorf("cuda: this binary was built without CUDA (tag nocuda): %w", compute.ErrUnsupported)

func openCUDA(deviceFlags) (processor, error) { return processor{}, errNoCUDA }

func checkGPU(int, func(string)) ([]string, error) { return nil, errNoCUDA }

func gpus() ([]string, int) { return []string{firstClause(errNoCUDA)}, 0 }
