package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"time"

	"longtake/rollout"
	"longtake/text"
	"longtake/video"
	"longtake/world"
)

// record says how a video was made: it lies beside the video, and --json prints it. Times are seconds, sizes bytes.
type record struct {
	Tool       toolRecord    `json:"tool"`
	Host       hostRecord    `json:"host"`
	Model      modelRecord   `json:"model"`
	Device     deviceRecord  `json:"device"`
	Request    requestRecord `json:"request"`
	Video      videoRecord   `json:"video"`
	Memory     memoryRecord  `json:"memory"`
	Timings    timingRecord  `json:"timings"`
	FramesHash string        `json:"frames_sha256"` // over the raw RGB frames, before scaling and encoding

	grows int64 // how much more memory than Memory.Session the video may take, if nothing in it repeats
}

type toolRecord struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
}

type hostRecord struct {
	OS   string `json:"os"`
	Arch string `json:"arch"`
	CPUs int    `json:"cpus"`
}

type modelRecord struct {
	Name       string `json:"name"`
	Hash       string `json:"sha256"`
	Parameters int    `json:"parameters"`

	// Of models that come from several files.
	Family string            `json:"family,omitempty"`
	Files  map[string]string `json:"files,omitempty"`
}

type deviceRecord struct {
	Name        string `json:"name"`
	Kernel      string `json:"kernel"`
	Description string `json:"description"`
	Why         string `json:"no_gpu,omitempty"` // why there is no GPU
}

type requestRecord struct {
	Prompt  string         `json:"prompt"`
	Prompts []promptRecord `json:"prompts,omitempty"` // that followed, each from its frame on
	Noise   string         `json:"noise,omitempty"`   // if it is not the native one
	Loop    string         `json:"loop,omitempty"`    // if it is not blockwise
	Refresh string         `json:"refresh,omitempty"` // if new prompts write the history again
	Unknown []unknownWord  `json:"unknown_words,omitempty"`
	Seed    uint64         `json:"seed"`
	Frames  int            `json:"frames"`
	Start   startRecord    `json:"start"`
	Actions string         `json:"actions"` // one for each frame but the first, as a script
	Steps   int            `json:"steps"`
	Flags   string         `json:"policy_flags,omitempty"` // those given, as an item of --policies
	Preset  string         `json:"preset,omitempty"`
	Policy  string         `json:"policy"` // kind of cache
	Window  int            `json:"window,omitempty"`
	Anchor  int            `json:"anchor,omitempty"`

	// The policies in words.
	Cache string `json:"cache"`
	Self  string `json:"self"`
	Cross string `json:"cross"`
}

type promptRecord struct {
	Frame  int    `json:"frame"`
	Prompt string `json:"prompt"`
}

type unknownWord struct {
	Word    string   `json:"word"`
	Nearest []string `json:"nearest"`
}

type startRecord struct {
	From    string `json:"from"` // as --start takes it
	Image   string `json:"sha256,omitempty"`
	Frames  int    `json:"frames"` // of the video that were given, not generated
	Heading int    `json:"heading"`
}

type videoRecord struct {
	File   string  `json:"file"`
	Width  int     `json:"width"` // of a raw frame
	Height int     `json:"height"`
	Scale  int     `json:"scale"`
	FPS    float64 `json:"fps"`
}

type memoryRecord struct {
	Weights int64 `json:"weights"`
	Session int64 `json:"session"` // before the run what it will take at first, in the end what it took
	Cache   int64 `json:"cache"`
	// Predicted is what weights and session were expected to take at most, Peak what the device counted.
	Predicted int64 `json:"predicted_peak,omitempty"`
	Peak      int64 `json:"peak,omitempty"`
}

type timingRecord struct {
	Loading    float64 `json:"loading,omitempty"`     // of the weights, part of start_up
	StartUp    float64 `json:"start_up"`              // from the start of the program to a session that is ready
	FirstFrame float64 `json:"first_frame,omitempty"` // from the start of the program to the first generated frame
	Total      float64 `json:"total"`
	MeanFPS    float64 `json:"mean_fps,omitempty"` // of generated frames, start-up not counted
	Denoise    float64 `json:"denoise"`            // summed over the frames
	Commit     float64 `json:"commit"`
	Decode     float64 `json:"decode"`
	Encode     float64 `json:"encode"` // beside the others, in a goroutine of its own
}

// newRecord writes down what is known before the first frame. Errors are the request's.
func newRecord(g *generateCommand, dev processor, e *rollout.Engine, p *plan, kept chosen) (*record, error) {
	solver, err := e.NewSolver(p.request.Steps)
	if err != nil {
		return nil, usageError{err}
	}
	session, err := e.SessionBytes(p.request)
	if err != nil {
		return nil, err
	}
	r := &record{
		Tool:   tool(),
		Host:   hostRecord{runtime.GOOS, runtime.GOARCH, runtime.NumCPU()},
		Model:  modelRecord{Name: e.Name, Parameters: e.Parameters},
		Device: deviceRecord{dev.kind, dev.kernel, dev.Device.Name(), dev.why},
		Request: requestRecord{
			Prompt: p.request.Prompt, Seed: p.request.Seed, Frames: p.frames, Steps: len(solver.Steps),
			Start:   startRecord{p.begin.name, p.begin.sum, len(p.given), p.request.Heading},
			Actions: world.FormatActions(p.actions),
			Flags:   g.text(), Preset: kept.Policy.Preset, Policy: kept.kind, Window: kept.window, Anchor: kept.anchor,
			Cache: kept.Policy.Cache, Self: kept.Policy.Self, Cross: kept.Policy.Cross,
		},
		Video: videoRecord{File: p.output},
	}
	if g.Noise != "native" {
		r.Request.Noise = g.Noise
	}
	if e.Loop > rollout.Blockwise {
		r.Request.Loop = e.Loop.String()
	}
	if p.request.Refresh > rollout.NoRefresh {
		r.Request.Refresh = p.request.Refresh.String()
	}
	r.Memory.Weights, r.Memory.Session = e.WeightBytes(), session
	if kept.most != nil {
		most := kept.most(e.LatentFrames(len(p.given)) + p.chunks*e.Network.ChunkFrames)
		r.grows = max(0, most-kept.Keeps.Bytes(e.Device, e.CacheShape))
	}
	return r, nil
}

// setModel adds what is known of the model's files and memory.
func (r *record) setModel(s settings) {
	r.Timings.Loading = seconds(s.loading)
	r.Memory.Predicted = r.Memory.Weights + r.Memory.Session + r.grows
	b, f := s.model.budget, s.model.files
	if b == nil {
		return
	}
	if b.TextLeaves {
		r.Memory.Predicted = max(r.Memory.Predicted, b.Text)
	}
	r.Model.Family = f.Family.Name
	r.Model.Files = map[string]string{}
	for what, path := range map[string]string{"network": f.Network, "adapter": f.Adapter, "text": f.Text, "tokenizer": f.Tokenizer, "vae": f.VAE, "tiny_vae": f.TinyVAE} {
		if path != "" {
			r.Model.Files[what] = path
		}
	}
}

func (r *record) setVideo(o video.Options) {
	r.Video.Width, r.Video.Height, r.Video.Scale, r.Video.FPS = o.Width, o.Height, max(o.Scale, 1), o.FPS.Float()
}

func (r *record) setUnknown(words []text.Unknown) {
	for _, u := range words {
		r.Request.Unknown = append(r.Request.Unknown, unknownWord(u))
	}
}

// announce says in two lines what is about to run.
func (r *record) announce(w io.Writer) {
	q := r.Request
	cache := q.Cache
	fmt.Fprintf(w, "%s, %.1f M parameters, on %s; seed %d, start %s, %d frames of %d steps\n",
		r.Model.Name, float64(r.Model.Parameters)/1e6, r.Device.Description, r.Request.Seed, r.Request.Start.From, r.Request.Frames, r.Request.Steps)
	if r.Device.Why != "" {
		fmt.Fprintf(w, "on the CPU, since there is no usable GPU: %s (longtake doctor)\n", r.Device.Why)
	}
	if r.grows > 0 {
		cache += fmt.Sprintf(" (its memory grows with what is new in the video, by %s if nothing repeats)", bytesText(r.grows))
	}
	if q.Preset != "" {
		fmt.Fprintf(w, "preset %s: ", q.Preset)
	}
	fmt.Fprintf(w, "cache %s; self attention %s, cross attention %s; memory %s weights + %s session\n", cache, q.Self, q.Cross, bytesText(r.Memory.Weights), bytesText(r.Memory.Session))
}

// summarize says in one line what was made.
func (r *record) summarize(w io.Writer) {
	v, t := r.Video, r.Timings
	fmt.Fprintf(w, "%s: %d frames, %dx%d at %.4g fps", v.File, r.Request.Frames, v.Width*v.Scale, v.Height*v.Scale, v.FPS)
	if t.MeanFPS > 0 {
		fmt.Fprintf(w, "; made at %.1f fps, first frame after %.2f s", t.MeanFPS, t.FirstFrame)
	}
	if m := r.Memory; m.Peak > 0 && r.Model.Family != "" {
		fmt.Fprintf(w, "; memory %s at most, predicted %s", bytesText(m.Peak), bytesText(m.Predicted))
	}
	fmt.Fprintln(w)
}

func (r *record) print(w io.Writer) error {
	_, err := w.Write(r.json())
	if err != nil {
		return fmt.Errorf("write standard output: %w", cause(err))
	}
	return nil
}

func (r *record) json() []byte { return jsonText(r) }

// jsonText formats for people, too.
func jsonText(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // a record holds nothing that JSON cannot
	}
	return append(b, '\n')
}

// seconds rounds to microseconds.
func seconds(d time.Duration) float64 { return rounded(d.Seconds(), 1e6) }

func rounded(x, parts float64) float64 { return math.Round(x*parts) / parts }

// bytesText writes a size in MiB or GiB.
func bytesText(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
