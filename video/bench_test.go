package video

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

func BenchmarkWriteFrame(b *testing.B) {
	for _, format := range []struct {
		name string
		open func(string, Options) (AtomicWriter, error)
	}{{"a.y4m", NewY4M}, {"a.gif", NewGIF}, {"png", NewPNG}, {"a.mp4", NewMP4}} {
		for _, o := range []Options{{Width: 64, Height: 64, Scale: 4}, {Width: 832, Height: 480, Scale: 1}} {
			b.Run(fmt.Sprintf("to=%s/size=%dx%d/scale=%d", format.name, o.Width, o.Height, o.Scale), func(b *testing.B) {
				if _, err := exec.LookPath("ffmpeg"); err != nil && format.name == "a.mp4" {
					b.Skip("needs ffmpeg on PATH; the other formats run everywhere")
				}
				o.FPS = Rate{16, 1}
				w, err := format.open(filepath.Join(b.TempDir(), format.name), o)
				if err != nil {
					b.Fatal(err)
				}
				defer w.Abort()
				frames := scenes(o.Width, o.Height, 8)
				i := 0
				for b.Loop() {
					if err := w.WriteFrame(ctx, frames[i%8]); err != nil {
						b.Fatal(err)
					}
					i++
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/frame")
			})
		}
	}
}
