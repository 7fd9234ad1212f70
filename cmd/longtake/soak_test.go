package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"longtake/api"
	"longtake/client"
)

// These measure a server as a process of its own and take minutes; dev/soak.sh runs them. Without LONGTAKE_SOAK they are skipped.

// soaking returns how long to measure.
func soaking(t *testing.T) time.Duration {
	t.Helper()
	length, err := time.ParseDuration(os.Getenv("LONGTAKE_SOAK"))
	if err != nil {
		t.Skip("minutes on an idle machine: LONGTAKE_SOAK=30m says for how long; dev/soak.sh runs it")
	}
	return length
}

// sample is what one viewer saw.
type sample struct {
	intervals, delays []float64 // milliseconds, sorted
	late, stages      float64   // late frames; mean milliseconds of a chunk
	length            time.Duration
}

func (s sample) fps() float64 { return float64(len(s.intervals)) / s.length.Seconds() }

func (s sample) String() string {
	n := max(1, len(s.intervals))
	return fmt.Sprintf("%d frames in %v: %.2f fps, chunk %.1f ms, interval p50 %.1f p99 %.1f max %.1f ms, %.0f late (%.2f %%), key to picture p50 %.1f p99 %.1f ms",
		len(s.intervals), s.length.Round(time.Second), s.fps(), s.stages/float64(n), at(s.intervals, .5), at(s.intervals, .99), at(s.intervals, 1), s.late,
		100*s.late/float64(n), at(s.delays, .5), at(s.delays, .99))
}

// at is the q-th quantile of sorted numbers.
func at(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

// observe reads the frames of a player for a while and presses a key every second; each is called now and then.
func observe(t *testing.T, p *client.Player, length time.Duration, each func()) (s sample) {
	start := time.Now()
	last, pressed, asked := time.Time{}, start, start
	first := -1
	for down := false; time.Since(start) < length; {
		if time.Since(pressed) > time.Second {
			pressed, down = time.Now(), !down
			keys := []string{}
			if down {
				keys = []string{"KeyW"}
			}
			if err := p.Send(t.Context(), api.Control{Type: "keys", Keys: keys, Time: float64(time.Since(start)) / 1e6}); err != nil {
				t.Error(err)
				return s
			}
		}
		m, err := p.Next(t.Context())
		if err != nil {
			t.Error(err)
			return s
		}
		if m.Frame == nil {
			continue
		}
		now := time.Now()
		if first < 0 {
			first = m.Frame.Late
		} else {
			s.intervals = append(s.intervals, now.Sub(last).Seconds()*1000)
		}
		last = now
		s.late = float64(m.Frame.Late - first)
		s.stages += m.Frame.GenMS
		if m.Frame.Echo > 0 {
			s.delays = append(s.delays, float64(now.Sub(start))/1e6-m.Frame.Echo)
		}
		if each != nil && time.Since(asked) > 5*time.Second {
			asked = now
			each()
		}
	}
	s.length = time.Since(start)
	slices.Sort(s.intervals)
	slices.Sort(s.delays)
	return s
}

// TestSoak plays for LONGTAKE_SOAK at LONGTAKE_SOAK_FPS (20) and reports rate, intervals, late frames, delay, and the slope of
// resident memory after a fifth of the time. LONGTAKE_STRICT=1 makes what is promised a condition.
func TestSoak(t *testing.T) {
	length := soaking(t)
	fps := 20.0
	if v, err := strconv.ParseFloat(os.Getenv("LONGTAKE_SOAK_FPS"), 64); err == nil {
		fps = v
	}
	cmd, c := program(t, "--data", t.TempDir(), "--quiet")
	p, err := c.Play(t.Context(), url.Values{"fps": {fmt.Sprint(fps)}, "format": {"jpeg"}})
	if err != nil {
		t.Fatal(err)
	}
	frames(t, p, 40) // the cache is full
	var hours, sizes []float64
	start := time.Now()
	s := observe(t, p, length, func() {
		hours, sizes = append(hours, time.Since(start).Hours()), append(sizes, float64(resident(cmd.Process.Pid))/(1<<20))
	})
	t.Log(s)
	t.Logf("p99 interval %.2f of nominal, key to picture p99 %.2f frames", at(s.intervals, .99)*fps/1000, at(s.delays, .99)*fps/1000)
	if len(sizes) < 10 {
		return
	}
	warm := len(sizes) / 5
	t.Logf("resident memory: %.1f MiB at first, %.1f after warm-up, %.1f at the end, most %.1f; slope after warm-up %.2f MiB/h",
		sizes[0], sizes[warm], sizes[len(sizes)-1], slices.Max(sizes), slope(hours[warm:], sizes[warm:]))
	if os.Getenv("LONGTAKE_STRICT") == "" {
		return
	}
	if s.fps() < 0.995*fps || at(s.intervals, .99)*fps/1000 > 1.5 || s.late > 0.005*float64(len(s.intervals)) || at(s.delays, .99)*fps/1000 > 2.1 {
		t.Error("rate, intervals, late frames or delay are not as promised")
	}
	if length >= 30*time.Minute && slope(hours[warm:], sizes[warm:]) > 1 {
		t.Error("memory grows")
	}
}

// slope of the least-squares line.
func slope(x, y []float64) float64 {
	var mx, my, xy, xx float64
	for i := range x {
		mx, my = mx+x[i]/float64(len(x)), my+y[i]/float64(len(x))
	}
	for i := range x {
		xy, xx = xy+(x[i]-mx)*(y[i]-my), xx+(x[i]-mx)*(x[i]-mx)
	}
	return xy / xx
}

// TestTwentyViewers measures a session that runs as fast as the engine can, with one viewer and with twenty in turn.
func TestTwentyViewers(t *testing.T) {
	length := soaking(t)
	_, c := program(t, "--data", t.TempDir(), "--quiet")
	p, err := c.Play(t.Context(), url.Values{"fps": {fmt.Sprint(api.MaxFPS)}, "format": {"jpeg"}})
	if err != nil {
		t.Fatal(err)
	}
	frames(t, p, 60)
	list, err := c.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var one, twenty []float64
	var seen atomic.Int64
	for range 3 {
		one = append(one, observe(t, p, length/6, nil).fps())
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 19 {
			v, err := c.Watch(ctx, list.Data[0].ID, "jpeg")
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				defer v.Cut()
				for {
					m, err := v.Next(ctx)
					if err != nil {
						return
					}
					if m.Frame != nil {
						seen.Add(1)
					}
				}
			})
		}
		twenty = append(twenty, observe(t, p, length/6, nil).fps())
		cancel()
		all.Wait()
	}
	a, b := mean(one), mean(twenty)
	t.Logf("one viewer %.2f fps %.2f, twenty %.2f fps %.2f: %.1f %% less; the others saw %d frames", a, one, b, twenty, 100*(1-b/a), seen.Load())
	if os.Getenv("LONGTAKE_STRICT") != "" && b < 0.9*a {
		t.Error("twenty viewers cost more than 10 %")
	}
}

func mean(v []float64) (m float64) {
	for _, x := range v {
		m += x / float64(len(v))
	}
	return m
}

// TestOverload asks for four times the sessions that fit and measures those that are served.
func TestOverload(t *testing.T) {
	length := soaking(t)
	fps := 10.0
	if v, err := strconv.ParseFloat(os.Getenv("LONGTAKE_OVERLOAD_FPS"), 64); err == nil {
		fps = v
	}
	cmd, c := program(t, "--data", t.TempDir(), "--quiet", "--load", "0.8")
	before := resident(cmd.Process.Pid)
	var served []*client.Player
	refused := 0
	for len(served) == 0 || len(served)+refused < 4*len(served) || refused == 0 {
		p, err := c.Play(t.Context(), url.Values{"fps": {fmt.Sprint(fps)}, "format": {"jpeg"}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Notice.Type == "error" {
			if refused++; m.Notice.RetryAfter <= 0 || m.Notice.Error.Type != api.Overloaded {
				t.Errorf("%+v", m.Notice)
			}
			p.Cut()
			continue
		}
		defer p.Cut()
		frames(t, p, 20)
		served = append(served, p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var others, all sync.WaitGroup
	var asked atomic.Int64
	for range 3 * len(served) { // and they go on asking
		others.Go(func() {
			for ctx.Err() == nil {
				p, err := c.Play(ctx, url.Values{"fps": {fmt.Sprint(fps)}})
				if err == nil {
					_, _ = p.Next(ctx)
					p.Cut()
				}
				asked.Add(1)
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	samples := make([]sample, len(served))
	for i, p := range served {
		all.Go(func() { samples[i] = observe(t, p, length, nil) })
	}
	health := beat(t, c.URL, length)
	all.Wait()
	cancel()
	others.Wait()
	t.Logf("%d sessions of %g fps served, %d refused at first, %d times later", len(served), fps, refused, asked.Load())
	for _, s := range samples {
		t.Log(s)
		if os.Getenv("LONGTAKE_STRICT") != "" && s.fps() < 0.95*fps {
			t.Error("a served session lost more than 5 % of its rate")
		}
	}
	t.Logf("/healthz p50 %.1f p99 %.1f max %.1f ms; resident %.0f MiB before, %.0f after", at(health, .5), at(health, .99), at(health, 1),
		float64(before)/(1<<20), float64(resident(cmd.Process.Pid))/(1<<20))
	if os.Getenv("LONGTAKE_STRICT") != "" && at(health, 1) > 100 {
		t.Error("/healthz took more than 100 ms")
	}
}

// beat asks for /healthz ten times a second, and returns the times in milliseconds, sorted.
func beat(t *testing.T, address string, length time.Duration) (took []float64) {
	for start := time.Now(); time.Since(start) < length; time.Sleep(100 * time.Millisecond) {
		began := time.Now()
		a, err := http.Get(address + "/healthz")
		if err != nil || a.StatusCode != http.StatusOK {
			t.Errorf("healthz: %v", err)
			return took
		}
		a.Body.Close()
		took = append(took, time.Since(began).Seconds()*1000)
	}
	slices.Sort(took)
	return took
}

// TestFirstPictureAfterStart measures from the start of the process to the first picture, and from a request to the first picture
// of a warm server.
func TestFirstPictureAfterStart(t *testing.T) {
	soaking(t)
	var cold, warm []float64
	for range 5 {
		began := time.Now()
		_, c := program(t, "--no-data", "--quiet")
		p, err := c.Play(t.Context(), url.Values{"format": {"jpeg"}})
		if err != nil {
			t.Fatal(err)
		}
		frames(t, p, 2) // the first is the start frame
		cold = append(cold, time.Since(began).Seconds()*1000)
		p.Cut()
		began = time.Now()
		if p, err = c.Play(t.Context(), url.Values{"format": {"jpeg"}}); err != nil {
			t.Fatal(err)
		}
		frames(t, p, 2)
		warm = append(warm, time.Since(began).Seconds()*1000)
		p.Cut()
	}
	t.Logf("ms from the start of the process to the first made picture: %.0f; of a warm server: %.0f", cold, warm)
	if os.Getenv("LONGTAKE_STRICT") != "" && (slices.Max(cold) > 2000 || slices.Max(warm) > 1000) {
		t.Error("too slow")
	}
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

// TestTheMapsCost measures a session that runs as fast as the engine can, without and with the map in turn.
func TestTheMapsCost(t *testing.T) {
	length := soaking(t)
	_, c := program(t, "--no-data", "--quiet")
	p, err := c.Play(t.Context(), url.Values{"fps": {fmt.Sprint(api.MaxFPS)}, "format": {"none"}})
	if err != nil {
		t.Fatal(err)
	}
	frames(t, p, 60)
	var off, on []float64
	for range 4 {
		off = append(off, observe(t, p, length/8, nil).fps())
		if err := p.Send(t.Context(), api.Control{Type: "map", Map: true}); err != nil {
			t.Fatal(err)
		}
		on = append(on, observe(t, p, length/8, nil).fps())
		if err := p.Send(t.Context(), api.Control{Type: "map"}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("without the map %.2f fps %.2f, with it %.2f fps %.2f: %.1f %% less", mean(off), off, mean(on), on, 100*(1-mean(on)/mean(off)))
}
