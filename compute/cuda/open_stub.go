//go:build nocuda || !linux || !(amd64 || arm64)

package cuda

import (
	"fmt"

	"longtake/compute"
)

var errBuilt = fmt.Errorf("cuda: this binary was built without CUDA (tag nocuda, or a system other than linux on amd64 and arm64): %w", compute.ErrUnsupported)

func probe() (Info, error) { return Info{}, errBuilt }

func openGPU(int) (driver, compiler, error) { return nil, nil, errBuilt }
