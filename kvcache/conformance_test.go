package kvcache_test

import (
	"testing"

	"longtake/compute/computetest"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/kvcache/kvcachetest"
)

func TestWindowsKeepTheLaws(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	exams := []kvcachetest.Exam{
		{Policy: kvcache.Window{Recent: 6}, Recent: 6, Fixed: true},
		{Policy: kvcache.Window{Anchor: 2, Recent: 3}, Anchor: 2, Recent: 3, Fixed: true},
		{Policy: kvcache.Window{Recent: 0}, Fixed: true},
		{Policy: kvcache.Window{Recent: kvcache.Full}, Recent: 1000, Complete: true},
	}
	for _, e := range exams {
		kvcachetest.Run(t, dev, e)
	}
	kvcachetest.Run(t, computetest.Reference(), exams[1])
}
