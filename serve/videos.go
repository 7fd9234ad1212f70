package serve

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"longtake/api"
	"longtake/video"
	"longtake/video/webm"
)

// jobs makes videos, one at a time, on the turns that live sessions leave.
type jobs struct {
	server *Server
	queue  chan *job
	done   chan struct{} // closed when the worker has ended

	mu     sync.Mutex
	known  []*job // the oldest first
	closed bool
}

// job is a video that was asked for.
type job struct {
	owner   string
	model   *Model
	setup   Setup
	actions []int
	frames  int
	fps     float64
	scale   int
	ctx     context.Context
	cancel  context.CancelFunc

	mu    sync.Mutex
	state api.Video
}

// knownJobs is how many jobs are remembered.
const knownJobs = 100

func newJobs(s *Server) *jobs {
	j := &jobs{server: s, queue: make(chan *job, s.limits.Videos), done: make(chan struct{})}
	go j.run()
	return j
}

// close cancels what waits and what is in work, and waits for the worker.
func (j *jobs) close() {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.queue)
	}
	known := slices.Clone(j.known)
	j.mu.Unlock()
	for _, x := range known {
		x.cancel()
	}
	<-j.done
}

// add puts a job into the queue, or refuses it.
func (j *jobs) add(x *job) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return &FullError{errDraining.Error(), retryFull}
	}
	select {
	case j.queue <- x:
	default:
		return &FullError{fmt.Sprintf("%d videos wait already", cap(j.queue)), time.Minute}
	}
	for i := 0; len(j.known) >= knownJobs && i < len(j.known); i++ {
		if old := j.known[i]; finished(old.describe().Status) {
			j.server.store.remove("videos", old.state.ID, ".webm")
			j.known = slices.Delete(j.known, i, i+1)
			break
		}
	}
	j.known = append(j.known, x)
	return nil
}

func finished(status string) bool {
	return status == api.Completed || status == api.Failed || status == api.Cancelled
}

func (j *jobs) find(id, owner string) (*job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, x := range j.known {
		if x.state.ID == id && x.owner == owner {
			return x, nil
		}
	}
	return nil, notFound("video", id)
}

func (x *job) describe() api.Video {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.state
}

func (x *job) update(f func(*api.Video)) {
	x.mu.Lock()
	f(&x.state)
	x.mu.Unlock()
}

// stop cancels the job; one that waits is cancelled at once.
func (x *job) stop() {
	x.cancel()
	x.update(func(v *api.Video) {
		if v.Status == api.Queued {
			v.Status = api.Cancelled
		}
	})
}

// run is the worker.
func (j *jobs) run() {
	defer close(j.done)
	for x := range j.queue {
		if x.ctx.Err() == nil {
			x.update(func(v *api.Video) { v.Status = api.InProgress })
			j.settle(x, j.film(x))
		} else {
			j.settle(x, x.ctx.Err())
		}
		x.cancel()
		j.server.metrics.videos.WithLabelValues(x.describe().Status).Inc()
	}
}

// settle writes down how a job ended.
func (j *jobs) settle(x *job, err error) {
	x.update(func(v *api.Video) {
		v.CompletedAt = time.Now().Unix()
		switch {
		case err == nil:
			v.Status, v.Progress = api.Completed, 100
		case x.ctx.Err() != nil:
			v.Status = api.Cancelled
		default:
			_, body := j.server.explain(err)
			v.Status, v.Error = api.Failed, &body.Error
		}
	})
	if err != nil {
		j.server.store.remove("videos", x.state.ID, ".webm.part")
	}
}

// film makes the video.
func (j *jobs) film(x *job) (err error) {
	s := j.server
	defer func() {
		if fault := recover(); fault != nil {
			s.metrics.faults.Inc()
			s.logger.Error("video fault", "video", x.state.ID, "fault", fmt.Sprint(fault))
			err = errors.New("internal fault")
		}
	}()
	bytes, err := need(x.model, x.setup, "")
	if err != nil {
		return err
	}
	var e *entry
	for { // room comes when sessions end
		var full *FullError
		if e, err = s.ledger.admit(bytes, 0); !errors.As(err, &full) {
			break
		}
		select {
		case <-time.After(time.Second):
		case <-x.ctx.Done():
			return x.ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	defer e.close()
	out, err := s.store.create("videos", x.state.ID, ".webm.part")
	if err != nil {
		return err
	}
	count := &counter{out: out}
	sheet := &sheet{clusters: newClusters(count, x.model.Width*x.scale, x.model.Height*x.scale), fps: x.fps, scale: x.scale, coder: webm.NewVP8(0)}
	err = errors.Join(x.roll(s, e, sheet), sheet.flush(), out.Sync(), out.Close())
	if err != nil {
		return err
	}
	x.update(func(v *api.Video) { v.Bytes = count.n })
	return s.store.publish("videos", x.state.ID, ".webm")
}

// sheet encodes frames at a steady rate.
type sheet struct {
	*clusters
	fps   float64
	scale int
	coder webm.KeyFrameEncoder
	count int
	big   []byte
}

func (t *sheet) add(f video.Frame) error {
	large := f.Upscale(t.scale, t.big)
	if t.scale > 1 {
		t.big = large.Pix
	}
	data, err := t.coder.EncodeKeyFrame(large)
	if err != nil {
		return err
	}
	at := time.Duration(math.Round(float64(t.count) / t.fps * float64(time.Second)))
	t.count++
	return t.frame(at, data)
}

// roll makes the frames; start frames are the first of them.
func (x *job) roll(s *Server, e *entry, t *sheet) (err error) {
	turn := func(f func() error) error {
		if err := s.turns.acquire(x.ctx, false); err != nil {
			return err
		}
		defer s.turns.release()
		return f()
	}
	if err := t.head(); err != nil {
		return err
	}
	var scene *scene
	var start []video.Frame
	err = turn(func() (err error) {
		scene, start, err = openScene(x.ctx, x.model, e, x.setup, "", nil)
		return err
	})
	if err != nil {
		return err
	}
	defer scene.Close()
	for _, f := range start[:min(len(start), x.frames)] {
		if err := t.add(f); err != nil {
			return err
		}
	}
	for t.count < x.frames {
		var m made
		err := turn(func() (err error) {
			if len(x.actions) > 0 {
				err = scene.steer(x.actions[max(t.count-1, 0)%len(x.actions)])
			}
			if err == nil {
				m, err = scene.step(x.ctx)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, f := range m.frames[0][:min(len(m.frames[0]), x.frames-t.count)] {
			if err := t.add(f); err != nil {
				return err
			}
		}
		x.update(func(v *api.Video) { v.Progress = 100 * t.count / x.frames })
	}
	sum := scene.sum()
	x.update(func(v *api.Video) { v.Digest = sum })
	return nil
}

// size reads "WIDTHxHEIGHT" as a multiple of the model's frames.
func (m *Model) scale(size string) (int, error) {
	if size == "" {
		return enlarge(m.Width, m.Height), nil
	}
	w, h, ok := strings.Cut(size, "x")
	width, err1 := strconv.Atoi(w)
	height, err2 := strconv.Atoi(h)
	n := width / m.Width
	if !ok || err1 != nil || err2 != nil || n < 1 || n > 64 || width != n*m.Width || height != n*m.Height || width > 4096 || height > 4096 {
		return 0, badf("size %.20q: a multiple of %dx%d is wanted, such as %dx%d", size, m.Width, m.Height, 4*m.Width, 4*m.Height)
	}
	return n, nil
}

func (s *Server) createVideo(w http.ResponseWriter, r *http.Request, who string) error {
	var q api.VideoRequest
	if err := body(r, &q); err != nil {
		return err
	}
	if s.store == nil {
		return errNoStore
	}
	x, err := s.job(&q, who)
	if err != nil {
		return err
	}
	if err := s.jobs.add(x); err != nil {
		x.cancel()
		return err
	}
	s.write(w, http.StatusOK, x.describe())
	return nil
}

// job checks a request.
func (s *Server) job(q *api.VideoRequest, who string) (*job, error) {
	o, err := s.opening(&api.SessionRequest{Model: q.Model, Seed: q.Seed, Start: q.Start, Image: q.Image, Prompt: q.Prompt, Steps: q.Steps, Policy: q.Policy, FPS: q.FPS})
	if err != nil {
		return nil, err
	}
	x := &job{owner: who, model: o.model, setup: o.setup, frames: q.NumFrames, fps: q.FPS}
	if x.fps == 0 {
		x.fps = o.model.FPS
	}
	if x.frames == 0 {
		seconds := float64(q.Seconds)
		if seconds == 0 {
			seconds = 4
		}
		x.frames = int(math.Min(math.Round(seconds*x.fps), 1e9))
	}
	if x.frames < 1 || x.frames > s.limits.VideoSize {
		return nil, badf("%d frames: 1 to %d", x.frames, s.limits.VideoSize)
	}
	if x.scale, err = o.model.scale(q.Size); err != nil {
		return nil, err
	}
	if o.model.Script != nil {
		if x.actions, err = o.model.Script(q.Actions, o.setup, x.frames); err != nil {
			return nil, err
		}
	}
	if _, err := need(o.model, o.setup, ""); err != nil {
		return nil, err
	}
	x.ctx, x.cancel = context.WithCancel(s.ctx)
	x.state = api.Video{ID: newID("vid"), Object: "video", Model: o.model.Name, Status: api.Queued, CreatedAt: time.Now().Unix(),
		Seconds: strconv.FormatFloat(float64(x.frames)/x.fps, 'g', 6, 64), Size: fmt.Sprintf("%dx%d", o.model.Width*x.scale, o.model.Height*x.scale),
		FPS: x.fps, NumFrames: x.frames, Seed: q.Seed, Policy: o.setup.Policy}
	return x, nil
}

func (s *Server) listVideos(w http.ResponseWriter, _ *http.Request, who string) error {
	list := api.VideoList{Object: "list", Data: []api.Video{}}
	s.jobs.mu.Lock()
	known := slices.Clone(s.jobs.known)
	s.jobs.mu.Unlock()
	for _, x := range slices.Backward(known) {
		if x.owner == who {
			list.Data = append(list.Data, x.describe())
		}
	}
	s.write(w, http.StatusOK, list)
	return nil
}

func (s *Server) getVideo(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.jobs.find(r.PathValue("id"), who)
	if err != nil {
		return err
	}
	s.write(w, http.StatusOK, x.describe())
	return nil
}

func (s *Server) cancelVideo(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.jobs.find(r.PathValue("id"), who)
	if err != nil {
		return err
	}
	x.stop()
	s.write(w, http.StatusOK, x.describe())
	return nil
}

func (s *Server) deleteVideo(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.jobs.find(r.PathValue("id"), who)
	if err != nil {
		return err
	}
	x.stop()
	s.jobs.mu.Lock()
	s.jobs.known = slices.DeleteFunc(s.jobs.known, func(other *job) bool { return other == x })
	s.jobs.mu.Unlock()
	s.store.remove("videos", x.state.ID, ".webm")
	s.write(w, http.StatusOK, api.Deleted{ID: x.state.ID, Object: "video", Deleted: true})
	return nil
}

func (s *Server) videoContent(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.jobs.find(r.PathValue("id"), who)
	if err != nil {
		return err
	}
	if status := x.describe().Status; status != api.Completed {
		return refuse(http.StatusConflict, api.Conflict, "the video is %s", status)
	}
	return s.send(w, r, "videos", x.state.ID, ".webm", "video/webm")
}
