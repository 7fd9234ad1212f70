package world

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"testing"
)

var (
	driver   = flag.String("driver", "", "compare with this build of testdata/golden/driver.cc")
	episodes = flag.Int("episodes", 10000, "how many episodes of each kind to compare with the driver")
)

func startDriver(t *testing.T, args ...any) *bufio.Reader {
	t.Helper()
	if *driver == "" {
		t.Skip("needs g++ for the driver: go test ./world -run Live -driver DRIVER, see testdata/golden/README.md; the golden episodes run everywhere")
	}
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = fmt.Sprint(a)
	}
	cmd := exec.Command(*driver, words...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Wait(); err != nil {
			t.Errorf("driver: %v", err)
		}
	})
	return bufio.NewReaderSize(out, 1<<20)
}

func TestEpisodesEqualALiveSimulators(t *testing.T) {
	for kind, span := range map[Kind]int{Mixed: 0, LookAround: 30, Circles: 0, WalkAndUndo: 40, WalkAndReturn: 40, Stroll: 0} {
		t.Run(kind.String(), func(t *testing.T) {
			const first, frames = 100_000_000, 128
			lines := startDriver(t, "digests", int(kind), span, frames, first, *episodes)
			different := 0
			for i := range *episodes {
				want, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				seed := uint32(first + i)
				if got := digest(mustEpisode(t, seed, frames, kind, span)) + "\n"; got != want {
					different++
					t.Errorf("seed %d differs", seed)
				}
			}
			t.Logf("%d of %d episodes of %d frames differ", different, *episodes, frames)
		})
	}
}

func TestFramesEqualALiveSimulators(t *testing.T) {
	const first, count, frames = 200_000_000, 60, 20
	in := startDriver(t, "frames", first, count, frames)
	want, got := make([]byte, 64*64*3), make([]byte, 64*64*3)
	var apart [256]int // how many values differ by so much
	for i := range count {
		e := mustEpisode(t, uint32(first+i), frames, Mixed, 0)
		for _, p := range e.Poses {
			if _, err := io.ReadFull(in, want); err != nil {
				t.Fatal(err)
			}
			e.World.Render(got, p, 64, 64)
			for k := range got {
				d := int(got[k]) - int(want[k])
				apart[max(d, -d)]++
			}
		}
	}
	far := 0
	for d, n := range apart {
		if d > 0 && n > 0 {
			t.Logf("%d values differ by %d", n, d)
		}
		if d > 1 {
			far += n
		}
	}
	total := count * frames * len(got)
	t.Logf("%d of %d values are equal", apart[0], total)
	if far*1000 > total {
		t.Errorf("%d of %d values differ by more than 1", far, total)
	}
}
