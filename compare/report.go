package compare

import (
	"encoding/json"
	"math"
)

// Decibel is a PSNR. In JSON it is a number, "inf" for equal pictures, or null where nothing was measured (NaN).
type Decibel float64

// Unmeasured stands where there was nothing to compare.
var Unmeasured = Decibel(math.NaN())

// equalDecibels is what equal pictures count as in means.
const equalDecibels = 100

// Measured reports whether there is a value.
func (d Decibel) Measured() bool { return !math.IsNaN(float64(d)) }

// MarshalJSON writes a number, "inf" or null.
func (d Decibel) MarshalJSON() ([]byte, error) {
	switch {
	case math.IsNaN(float64(d)):
		return []byte("null"), nil
	case math.IsInf(float64(d), 0):
		return []byte(`"inf"`), nil
	}
	return json.Marshal(math.Round(float64(d)*1e4) / 1e4)
}

// UnmarshalJSON reads what MarshalJSON writes, rounded to 1/10,000 dB.
func (d *Decibel) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "null":
		*d = Unmeasured
		return nil
	case `"inf"`:
		*d = Decibel(math.Inf(1))
		return nil
	}
	return json.Unmarshal(b, (*float64)(d))
}

// Setup says what was run, and on what. The caller fills it in; this package only sets Frames, Given and ChunkFrames.
type Setup struct {
	Tool        string  `json:"tool"` // name, version and revision
	Host        string  `json:"host"` // system, processor and number of cores
	Device      string  `json:"device"`
	Kernel      string  `json:"kernel"` // class of kernels
	Threads     int     `json:"threads"`
	Model       string  `json:"model"`
	ModelHash   string  `json:"model_sha256"`
	Prompt      string  `json:"prompt,omitempty"`
	Seed        uint64  `json:"seed"`
	Start       string  `json:"start,omitempty"`
	Actions     string  `json:"actions,omitempty"` // as a script
	Steps       int     `json:"steps"`
	Frames      int     `json:"frames"`       // of a video, given ones included
	Given       int     `json:"given"`        // frames at the start that were given, not made
	ChunkFrames int     `json:"chunk_frames"` // latent frames made together
	FPS         float64 `json:"fps"`          // at which the model's videos are shown
	Command     string  `json:"command,omitempty"`
}

// Policy says what a name stands for.
type Policy struct {
	Name   string `json:"name"` // as the user wrote it; no two entries have the same
	Preset string `json:"preset,omitempty"`
	Cache  string `json:"cache"` // in words, as are Self and Cross
	Self   string `json:"self"`
	Cross  string `json:"cross"`
}

// Report is what Policies measures. Runs[0] is the reference.
type Report struct {
	Setup Setup `json:"setup"`
	// Frontiers are the frames at which Run.Frontiers were taken, in rising order.
	Frontiers []int `json:"frontiers"`
	// DivergedBelow is the PSNR (dB) of Run.FirstDiverged.
	DivergedBelow float64 `json:"diverged_below"`
	// Parallel is how many runs shared the machine, 0 for one after the other; times are then those of chunks that had it to
	// themselves, see Options.Parallel. Asked is how many frames were wanted where the time did not suffice, else 0.
	Parallel int `json:"parallel,omitempty"`
	Asked    int `json:"asked,omitempty"`
	// Free is the frame at which the first free run ended where some end before the video, else 0; see Options.Free.
	Free int `json:"free,omitempty"`
	// Span is how many frames each of Run.Spans pools.
	Span int   `json:"span"`
	Runs []Run `json:"runs"`
	// Ceiling is the reference with another order of summation, CeilingHow says which; nil if it was not run.
	Ceiling     *Run   `json:"ceiling,omitempty"`
	CeilingHow  string `json:"ceiling_how,omitempty"`
	TruthStrip  Strip  `json:"truth_strip,omitempty"`  // the simulator's frames, where there are any
	TruthFrames int    `json:"truth_frames,omitempty"` // frames that Run.Truth is measured on
}

// Run is one entry's part of a report. Slices by frame cover the whole video and are unmeasured (null) for given frames.
type Run struct {
	Policy Policy `json:"policy"`
	// PSNR, SSIM and MSSSIM (three scales) of each frame against the reference's; absent in the reference itself.
	PSNR   []Decibel  `json:"psnr,omitempty"`
	SSIM   []Fraction `json:"ssim,omitempty"`
	MSSSIM []Fraction `json:"ms_ssim,omitempty"`
	// Truth is the PSNR against the simulator of frames whose pose was seen in a given frame; unmeasured elsewhere.
	Truth []Decibel `json:"truth,omitempty"`
	// Mean pools all generated frames (up to Report.Free, so that means can be compared), Spans runs of Report.Span frames.
	Mean  Quality   `json:"mean"`
	Spans []Quality `json:"spans,omitempty"`
	// TruthMean is the mean of Truth.
	TruthMean Decibel `json:"truth_mean"`
	// FirstDiverged is the first frame below Report.DivergedBelow, -1 if there is none.
	FirstDiverged int `json:"first_diverged"`
	// FirstFrame is the time from the start of the session to its first frame (seconds), Total the whole run's; Speedup how
	// many times faster than the reference that is, ComponentSpeedup that of what the policy changes: of self attention and the
	// cache's own work, or of cross attention where only that differs; both over the whole video.
	FirstFrame float64 `json:"first_frame"`
	Total      float64 `json:"total"`
	Speedup    float64 `json:"speedup"`

	ComponentSpeedup float64 `json:"component_speedup"`
	// ChunkSeconds, CacheBytes and Tokens are taken after every chunk.
	ChunkSeconds []float64 `json:"chunk_seconds"`
	CacheBytes   []int64   `json:"cache_bytes"`
	Tokens       []float64 `json:"tokens"`
	// FreeFrames is where the free run ended; beyond it, speed and sizes are those of chunks on the reference's history.
	FreeFrames int `json:"free_frames"`
	// FramesHash is SHA-256 over the raw RGB of all frames, given ones included.
	FramesHash string     `json:"frames_sha256"`
	Frontiers  []Frontier `json:"frontiers"`
	Strip      Strip      `json:"strip,omitempty"`
}

// Fraction is a similarity or a share; NaN, nothing measured, is null in JSON.
type Fraction float64

// MarshalJSON writes a number or null.
func (f Fraction) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(math.Round(float64(f)*1e6) / 1e6)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *Fraction) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*f = Fraction(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float64)(f))
}

// Quality is the mean over some frames against the reference. Equal frames count as 100 dB.
type Quality struct {
	From   int      `json:"from"` // frames From to To-1
	To     int      `json:"to"`
	Frames int      `json:"frames"` // measured
	Equal  int      `json:"equal"`  // of which bit by bit the reference's
	PSNR   Decibel  `json:"psnr"`
	SSIM   Fraction `json:"ssim"`
	MSSSIM Fraction `json:"ms_ssim"`
}

// Speed is what chunks up to a frame took: means over Chunks chunks, in seconds a chunk unless said.
type Speed struct {
	Frame  int `json:"frame"`
	Chunks int `json:"chunks"`
	// FPS is of frames made.
	FPS  float64 `json:"fps"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	// The stages; Compact is the cache's own work, Match the attention policies' deciding, Attend all of self attention and
	// AttendCross all of cross attention (all four are part of the others).
	Denoise float64 `json:"denoise"`
	Commit  float64 `json:"commit"`
	Decode  float64 `json:"decode"`
	Compact float64 `json:"compact"`
	Match   float64 `json:"match"`

	Attend      float64 `json:"attend"`
	AttendCross float64 `json:"attend_cross"`
	// Sizes after the frame: Tokens is the mean number of keys a head sees, Density that by those of a full cache.
	CacheBytes   int64   `json:"cache_bytes"`
	SessionBytes int64   `json:"session_bytes"`
	Tokens       float64 `json:"tokens"`
	Density      float64 `json:"density"`
}

// Frontier is what was found at a frame: speed in the free run, and what the policy makes of the reference's own history.
type Frontier struct {
	Speed
	// Quality of the free run over the Report.Span frames up to the frontier.
	Quality Quality `json:"quality"`
	// OneStep compares the chunk that ends here, made on the reference's own history, with the reference's; nil if not run.
	OneStep *Quality `json:"one_step,omitempty"`
	// Around is the same of single chunks spread over Span before it, where the run keeps a history of its own: PSNR, oldest first.
	Around []Decibel `json:"one_step_around,omitempty"`
	// Self and Cross are what the attention policies looked at in that chunk, layer by layer; nil of dense ones.
	Self  []Share `json:"self,omitempty"`
	Cross []Share `json:"cross,omitempty"`
}

// Share is what one layer's attention looked at, mean over heads and queries. The two belong together: density is the share of
// query-key pairs that were computed, recall the share of dense attention's mass that lay on them.
type Share struct {
	Layer   int      `json:"layer"`
	Density Fraction `json:"density"`
	Recall  Fraction `json:"recall"`
}

// Strip is a row of pictures.
type Strip []Still

// Still is a frame as a PNG file (base64 in JSON).
type Still struct {
	Frame int    `json:"frame"`
	PNG   []byte `json:"png"`
}

// BenchReport is what Bench measures.
type BenchReport struct {
	Setup Setup `json:"setup"`
	// Turn is how many chunks an entry makes before the next one's turn comes.
	Turn int        `json:"turn"`
	Runs []BenchRun `json:"runs"`
	// PeakRSS is the most memory that the process had, all entries together (bytes); the caller fills it in, 0 is unknown.
	PeakRSS int64 `json:"peak_rss"`
}

// BenchRun is one entry's speed.
type BenchRun struct {
	Policy     Policy  `json:"policy"`
	FirstFrame float64 `json:"first_frame"`
	Total      float64 `json:"total"`
	Frontiers  []Speed `json:"frontiers"`
}

// MemoryReport is what Memory and Play measure: pictures of places that were seen before, and play, against the truth.
type MemoryReport struct {
	Setup Setup        `json:"setup"`
	Tests []MemoryTest `json:"tests"`
	Play  []PlayTest   `json:"play,omitempty"`
}

// PlayTest is one measure of play.
type PlayTest struct {
	Measure string `json:"measure"`
	// Frames of a clip, Given of them true ones (of a stroll; other measures begin as they need).
	Frames int       `json:"frames"`
	Given  int       `json:"given"`
	Seeds  []uint32  `json:"seeds"`
	Rows   []PlayRow `json:"rows"`
	// TruthStrip shows the simulator's walk in the first world.
	TruthStrip Strip `json:"truth_strip,omitempty"`
}

// PlayRow is what one policy did. Tokens and CacheBytes are those at the end of a clip, mean and most.
type PlayRow struct {
	Policy     Policy    `json:"policy"`
	Tokens     float64   `json:"tokens"`
	CacheBytes int64     `json:"cache_bytes"`
	Findings   []Finding `json:"findings"`
	Strip      Strip     `json:"strip,omitempty"`
}

// Finding is a number that was measured in N clips: mean, standard error of the mean, and each clip's.
type Finding struct {
	Name  string     `json:"name"`
	N     int        `json:"n"`
	Mean  Fraction   `json:"mean"`
	SE    Fraction   `json:"se"`
	Clips []Fraction `json:"clips"`
}

// MemoryTest is one way of leaving and coming back.
type MemoryTest struct {
	// Kind is look-around, walk-and-undo or circles; Span its frames one way.
	Kind string `json:"kind"`
	Span int    `json:"span"`
	// Given true frames come first, then Made generated ones.
	Given int `json:"given"`
	Made  int `json:"made"`
	// Seeds of the worlds, one clip each.
	Seeds []uint32    `json:"seeds"`
	Rows  []MemoryRow `json:"rows"`
	// TruthStrip shows the simulator's frames of the first clip that the rows' strips are to be compared with.
	TruthStrip Strip `json:"truth_strip,omitempty"`
}

// MemoryRow is one policy's memory.
type MemoryRow struct {
	Policy Policy `json:"policy"`
	// Tokens is the mean number of keys a head sees at the end, CacheBytes the memory then; means over clips.
	Tokens     float64 `json:"tokens"`
	CacheBytes int64   `json:"cache_bytes"`
	// PSNR is the mean over all generated frames of all clips, against the truth, Error its standard error over clips (dB); Gain is
	// how much better than the first row's policy it is, clip by clip, GainError the standard error of that. Thirds that of the early, middle and late
	// part; Last that of the last five frames; Worst that of the worst clip.
	PSNR      Decibel `json:"psnr"`
	Error     float64 `json:"psnr_error"`
	Gain      float64 `json:"gain"`
	GainError float64 `json:"gain_error"`

	Thirds [3]Decibel `json:"thirds"`
	Last   Decibel    `json:"last"`
	Worst  Decibel    `json:"worst"`
	// Seen is the mean PSNR over the pixels that a given frame has shown, which is what can be remembered, SeenError its standard error
	// over clips; New is the share of the others.
	Seen      Decibel  `json:"seen_psnr"`
	SeenError float64  `json:"seen_psnr_error"`
	New       Fraction `json:"never_seen"`
	// Clips has the mean of each clip, Frames that of each generated frame over the clips.
	Clips  []Decibel `json:"clips"`
	Frames []Decibel `json:"frames"`
	// ToFirst is the mean PSNR to the frames of the first row's policy; unmeasured in that row.
	ToFirst Decibel `json:"to_first"`
	FPS     float64 `json:"fps"`
	// Strip shows the generated frames of the first clip.
	Strip Strip `json:"strip,omitempty"`
}
