package serve

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are what Prometheus sees. Labels come from small fixed sets, never from callers.
type metrics struct {
	registry *prometheus.Registry
	frames   prometheus.Counter
	late     prometheus.Counter
	interval prometheus.Histogram
	stages   *prometheus.HistogramVec
	chunks   prometheus.Histogram
	wait     prometheus.Histogram
	latency  prometheus.Histogram
	controls prometheus.Counter
	refusals *prometheus.CounterVec
	faults   prometheus.Counter
	started  prometheus.Counter
	lostLogs prometheus.Counter
	dropped  prometheus.Counter
	ended    prometheus.Counter
	requests *prometheus.CounterVec
	videos   *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := &metrics{registry: r}
	counter := func(name, text string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "longtake", Name: name, Help: text})
		r.MustRegister(c)
		return c
	}
	vector := func(name, text, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "longtake", Name: name, Help: text}, []string{label})
		r.MustRegister(c)
		return c
	}
	seconds := prometheus.ExponentialBucketsRange(0.001, 10, 25)
	histogram := func(name, text string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "longtake", Name: name, Help: text, Buckets: seconds})
		r.MustRegister(h)
		return h
	}
	gauge := func(name, text string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "longtake", Name: name, Help: text}, f))
	}
	m.frames = counter("frames_total", "Frames shown.")
	m.late = counter("frames_late_total", "Frames shown more than half an interval after they were due.")
	m.interval = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "longtake", Name: "frames_per_second",
		Help: "Frame rate of sessions over their last 32 frames, seen at every frame.", Buckets: prometheus.LinearBuckets(2, 2, 32)})
	m.stages = prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "longtake", Name: "chunk_stage_seconds",
		Help: "Time of a chunk by stage.", Buckets: seconds}, []string{"stage"})
	r.MustRegister(m.interval, m.stages)
	m.chunks = histogram("chunk_seconds", "Time of a chunk, waiting for the engine included.")
	m.wait = histogram("engine_wait_seconds", "Time that a chunk waits for its turn on the engine.")
	m.latency = histogram("control_to_frame_seconds", "Time from a key's arrival to the first frame that obeys it.")
	m.controls = counter("controls_total", "Control messages accepted.")
	m.refusals = vector("refusals_total", "Requests refused, by reason.", "reason")
	m.faults = counter("faults_total", "Faults that ended a session or a request.")
	m.started = counter("sessions_started_total", "Sessions started.")
	m.ended = counter("sessions_ended_total", "Sessions ended.")
	m.lostLogs = counter("event_logs_lost_total", "Event logs given up because the disk failed or was full.")
	m.dropped = counter("frames_dropped_total", "Frames that viewers were too slow for.")
	m.requests = vector("http_requests_total", "Requests by class of status.", "class")
	m.videos = vector("videos_total", "Video jobs by final status.", "status")
	gauge("sessions", "Sessions now.", func() float64 { _, n := s.ledger.Used(); return float64(n) })
	gauge("reserved_bytes", "Bytes reserved by sessions.", func() float64 { n, _ := s.ledger.Used(); return float64(n) })
	gauge("cache_bytes", "Bytes of the caches of all sessions.", func() float64 { return float64(s.cacheBytes.Load()) })
	gauge("viewers", "Viewers now.", func() float64 { return float64(s.viewerCount()) })
	gauge("engine_queue", "Chunks that wait for the engine.", func() float64 { return float64(s.turns.waiting()) })
	gauge("weight_bytes", "Bytes of the models' weights.", func() float64 { return float64(s.weightBytes()) })
	return m
}

// chunk counts what a step took.
func (m *metrics) chunk(s *scene, _ made, all time.Duration) {
	m.chunks.Observe(all.Seconds())
	for _, v := range s.views {
		t := v.Times()
		m.stages.WithLabelValues("denoise").Observe(t.Denoise.Seconds())
		m.stages.WithLabelValues("commit").Observe(t.Commit.Seconds())
		m.stages.WithLabelValues("decode").Observe(t.Decode.Seconds())
	}
}

// frame counts a frame that was shown.
func (m *metrics) frame(late bool, fps float64) {
	m.frames.Inc()
	if late {
		m.late.Inc()
	}
	if fps > 0 {
		m.interval.Observe(fps)
	}
}
