// Package modeltest opens the embedded model for tests of other packages. Only tests import it.
package modeltest

import (
	"testing"

	"longtake/compute/cpu"
	"longtake/model"
	"longtake/rollout"
)

// TinyWorld opens the embedded model on a CPU. The test's end closes both.
func TinyWorld(t testing.TB, o cpu.Options) *rollout.Engine {
	t.Helper()
	dev, err := cpu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	e, err := model.OpenTinyWorld(dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}
