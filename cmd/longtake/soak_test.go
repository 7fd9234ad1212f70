package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"longtake/api"
	"longtake/client"
	"longtake/serve"
)

// program starts "longtake serve" as a process of its own and waits until it answers.
func program(t *testing.T, args ...string) (*exec.Cmd, *client.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"serve", "--listen", addr, "--load", "0", "--device", "cpu"}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	c := &client.Client{URL: "http://" + addr}
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := c.Models(t.Context()); err == nil {
			return cmd, c
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// frames reads n frames of a player.
func frames(t *testing.T, p *client.Player, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for n > 0 {
		m, err := p.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.Frame != nil {
			n--
		}
	}
}

func TestWhatAKilledServerLeavesCanBeReadAndATerminatedOneEndsWell(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("signals are not the same there")
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		data := t.TempDir()
		cmd, c := program(t, "--data", data, "--quiet")
		x, err := c.CreateSession(t.Context(), api.SessionRequest{Seed: 5})
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Watch(t.Context(), x.ID, "jpeg")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), api.Control{Type: "record", Record: true}); err != nil {
			t.Fatal(err)
		}
		// Fragments reach the disk every second or two; under the race detector, or on a busy machine, later.
		began := time.Now()
		for size := int64(0); size < 1000 && time.Since(began) < time.Minute; {
			frames(t, p, 1)
			if tapes, _ := filepath.Glob(filepath.Join(data, "recordings", "*.webm*")); len(tapes) == 1 {
				if info, err := os.Stat(tapes[0]); err == nil {
					size = info.Size()
				}
			}
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		if signal == syscall.SIGTERM && err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
		p.Cut()
		in, err := os.Open(filepath.Join(data, "logs", x.ID+".jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		events, err := serve.ReadLog(in, 1000)
		in.Close()
		if err != nil {
			t.Fatal(err)
		}
		if whole := events[len(events)-1].Type == "end"; whole != (signal == syscall.SIGTERM) {
			t.Errorf("%v: the log's end is there: %v", signal, whole)
		}
		tapes, err := filepath.Glob(filepath.Join(data, "recordings", "*.webm"))
		if err != nil || len(tapes) != 1 {
			t.Fatalf("%v: recordings %v, %v", signal, tapes, err)
		}
		if info, err := os.Stat(tapes[0]); err != nil || info.Size() < 1000 {
			t.Errorf("%v: the recording has %d bytes", signal, info.Size())
		}
	}
}

// TestSoak plays for LONGTAKE_SOAK (such as 30m) and reports rate, intervals, late frames, delay and memory; LONGTAKE_SOAK_FPS is
// the rate asked for, LONGTAKE_SOAK_VIEWERS how many watch. LONGTAKE_SOAK=30m is the soak of a release.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("LONGTAKE_SOAK"))
	if err != nil {
		t.Skip("LONGTAKE_SOAK says for how long, such as 30m")
	}
	fps := os.Getenv("LONGTAKE_SOAK_FPS")
	viewers, _ := strconv.Atoi(os.Getenv("LONGTAKE_SOAK_VIEWERS"))
	cmd, c := program(t, "--data", t.TempDir(), "--quiet")
	began := time.Now()
	p, err := c.Play(t.Context(), url.Values{"fps": {fps}, "format": {"jpeg"}})
	if err != nil {
		t.Fatal(err)
	}
	frames(t, p, 1)
	t.Logf("first picture after %v", time.Since(began).Round(time.Millisecond))
	frames(t, p, 40) // the cache is full
	list, err := c.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range viewers {
		watch(t, c, list.Data[0].ID)
	}
	var intervals, delays []float64
	var sizes []int64
	late, first := 0, -1
	start, last, measured := time.Now(), time.Now(), time.Now()
	for i := 0; time.Since(start) < length; i++ {
		if i%20 == 0 {
			keys := []string{}
			if i%40 == 0 {
				keys = []string{"KeyW"}
			}
			if err := p.Send(t.Context(), api.Control{Type: "keys", Keys: keys, Time: float64(time.Since(start)) / 1e6}); err != nil {
				t.Fatal(err)
			}
		}
		m, err := p.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Frame == nil {
			continue
		}
		if first < 0 {
			first = m.Frame.Late
		}
		late = m.Frame.Late - first
		now := time.Now()
		intervals = append(intervals, now.Sub(last).Seconds()*1000)
		last = now
		if m.Frame.Echo > 0 {
			delays = append(delays, float64(now.Sub(start))/1e6-m.Frame.Echo)
		}
		if time.Since(measured) > 5*time.Second || len(sizes) == 0 {
			measured = now
			sizes = append(sizes, resident(cmd.Process.Pid))
		}
	}
	slices.Sort(intervals)
	slices.Sort(delays)
	at := func(v []float64, q float64) float64 { return v[min(len(v)-1, int(q*float64(len(v))))] }
	t.Logf("%d frames in %v: %.2f fps, interval p50 %.1f p99 %.1f max %.1f ms, %d late (%.2f %%), key to picture p50 %.1f p99 %.1f ms", len(intervals), length,
		float64(len(intervals))/length.Seconds(), at(intervals, .5), at(intervals, .99), at(intervals, 1), late, 100*float64(late)/float64(len(intervals)),
		at(delays, .5), at(delays, .99))
	t.Logf("resident memory: %.1f MiB after warm-up, %.1f MiB at the end", float64(sizes[0])/(1<<20), float64(sizes[len(sizes)-1])/(1<<20))
}

// watch reads the frames of a session until the test ends.
func watch(t *testing.T, c *client.Client, id string) {
	t.Helper()
	v, err := c.Watch(t.Context(), id, "jpeg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Cut() })
	go func() {
		for {
			if _, err := v.Next(t.Context()); err != nil {
				return
			}
		}
	}()
}

// resident is the memory of a process, 0 where it is not known.
func resident(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}
