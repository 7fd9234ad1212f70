package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"time"

	"longtake/video"
)

// scene is a session without clocks: events and actions in, frames out, the same every time. Sessions, lock-step, videos and
// replays all run one. It belongs to one goroutine at a time.
type scene struct {
	model *Model
	// entry is charged for what the views take.
	entry *entry
	// log receives every event that took place; nil keeps none.
	log func(*Event)

	setup  Setup
	prompt string // in use
	views  []*view
	chunk  int // chunks made, resets included
	frame  int // frames made, of the first view
	action int // in force
	past   past
	digest hash.Hash
}

// view is a timeline of the scene; a comparison has two.
type view struct {
	name  string // of the policy
	bytes int64
	Timeline
	took time.Duration // the last chunk, alone on the engine
}

// past is what a timeline with another policy is begun from: the last chunks' latents and the actions that led to them.
type past struct {
	chunks []pastChunk // oldest first, at most pastChunks
	whole  bool        // nothing has been forgotten since the start frames
}

type pastChunk struct {
	latent  []float32
	action  int
	heading int // after the chunk
}

// pastChunks is how many chunks a switch of policy remembers, by the clean pass of each; bytes of them are counted by scene.need.
const pastChunks = 32

// made is what a step leaves: frames by view, which belong to whoever takes them.
type made struct {
	chunk, action int
	frames        [][]video.Frame
	took          []time.Duration
}

// openScene starts a scene with a setup and, if compare is not empty, a second view. It charges entry, which the caller has
// opened with the bytes of need.
func openScene(ctx context.Context, m *Model, e *entry, setup Setup, compare string, log func(*Event)) (s *scene, start []video.Frame, err error) {
	s = &scene{model: m, entry: e, log: log, digest: sha256.New()}
	if setup.Policy, err = m.policy(setup.Policy); err != nil {
		return nil, nil, err
	}
	if compare != "" {
		if compare, err = m.policy(compare); err != nil {
			return nil, nil, err
		}
	}
	s.note(&Event{Type: eventBegin, Version: logVersion, Model: m.Name, Hash: m.Hash, Kernel: m.Kernel, Policies: m.meanings(), Setup: &setup, Compare: compare})
	if start, err = s.begin(ctx, setup, compare); err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, start, nil
}

// need returns the bytes that a scene takes.
func need(m *Model, setup Setup, compare string) (int64, error) {
	sum := pastBytes(m)
	for _, policy := range []string{setup.Policy, compare} {
		if policy == "" && sum > pastBytes(m) {
			continue
		}
		var err error
		if setup.Policy, err = m.policy(policy); err != nil {
			return 0, err
		}
		p, err := m.Plan(setup)
		if err != nil {
			return 0, err
		}
		sum += p.Bytes
	}
	return sum, nil
}

// pastBytes is what a scene keeps besides its views: latents, an estimate from above for models whose latents are no larger than their
// pixels, and events.
func pastBytes(m *Model) int64 {
	return int64(pastChunks)*int64(m.Width)*int64(m.Height)*3*4 + maxHistory
}

// begin makes the views for a setup. The bytes are charged already.
func (s *scene) begin(ctx context.Context, setup Setup, compare string) (start []video.Frame, err error) {
	s.setup, s.past, s.action = setup, past{whole: true}, 0
	for _, policy := range []string{setup.Policy, compare} {
		if policy == "" {
			continue
		}
		setup.Policy = policy
		p, err := s.model.Plan(setup)
		if err != nil {
			return nil, err
		}
		t, err := p.Open(ctx)
		if err != nil {
			return nil, err
		}
		s.prompt, start = p.Prompt, p.Start
		s.views = append(s.views, &view{name: policy, bytes: p.Bytes, Timeline: t})
	}
	return start, nil
}

func (s *scene) note(e *Event) {
	if s.log != nil {
		e.Chunk = s.chunk
		s.log(e)
	}
}

// step makes a chunk of every view, led by the action in force.
func (s *scene) step(ctx context.Context) (m made, err error) {
	m = made{chunk: s.chunk, action: s.action}
	for _, v := range s.views {
		began := time.Now()
		frames, err := v.Next(ctx, s.action)
		if err != nil {
			return m, err
		}
		v.took = time.Since(began)
		for _, f := range frames {
			s.digest.Write(f.Pix)
		}
		m.frames, m.took = append(m.frames, frames), append(m.took, v.took)
	}
	s.chunk++
	s.frame += len(m.frames[0])
	if err := s.remember(); err != nil {
		return m, err
	}
	if s.chunk%digestEvery == 0 {
		s.note(&Event{Type: eventDigest, SHA256: s.sum()})
	}
	return m, nil
}

// sum is the SHA-256 of all frames so far: of each chunk the first view's, then the second's.
func (s *scene) sum() string { return hex.EncodeToString(s.digest.Sum(nil)) }

// remember keeps the chunk that the first view has made.
func (s *scene) remember() error {
	latent, err := s.views[0].Latents()
	if err != nil {
		return err
	}
	p := &s.past
	if len(p.chunks) == pastChunks {
		p.chunks = append(p.chunks[:0], p.chunks[1:]...)
		p.whole = false
	}
	p.chunks = append(p.chunks, pastChunk{latent, s.action, s.views[0].Heading()})
	return nil
}

// end writes the last line of the log.
func (s *scene) end() { s.note(&Event{Type: eventEnd, SHA256: s.sum()}) }

// steer sets the action from the next chunk on.
func (s *scene) steer(action int) error {
	if action < 0 || action >= max(len(s.model.Actions), 1) {
		return badf("action %d, the model knows 0 to %d", action, len(s.model.Actions)-1)
	}
	if action != s.action {
		s.action = action
		s.note(&Event{Type: eventAction, Action: action})
	}
	return nil
}

// setPrompt changes the prompt of all views from the next chunk on, and returns the words that the model does not know. After
// ErrRequest nothing has changed.
func (s *scene) setPrompt(ctx context.Context, prompt string) ([]string, error) {
	for i, v := range s.views {
		if err := v.SetPrompt(ctx, prompt); err != nil {
			if i > 0 { // the views may not differ in more than their policy
				err = errors.Join(errors.New("the prompt reached one view only"), err)
			}
			return nil, err
		}
	}
	s.prompt = prompt
	s.note(&Event{Type: eventPrompt, Prompt: prompt})
	return unknownWords(s.views[0].Unknown()), nil
}

// setPolicy gives a view another policy: a new timeline whose past is that of the first view.
func (s *scene) setPolicy(ctx context.Context, i int, policy string) error {
	if i >= len(s.views) {
		return badf("there is no view %d", i)
	}
	v, err := s.branch(ctx, policy)
	if err != nil {
		return err
	}
	s.drop(s.views[i])
	s.views[i] = v
	s.note(&Event{Type: eventPolicy, View: i, Policy: v.name})
	return nil
}

// compare runs a second view beside the first, from here on with the same input; "" ends that.
func (s *scene) compare(ctx context.Context, policy string) error {
	if policy == "" {
		if len(s.views) == 2 {
			s.drop(s.views[1])
			s.views = s.views[:1]
			s.note(&Event{Type: eventCompare})
		}
		return nil
	}
	v, err := s.branch(ctx, policy)
	if err != nil {
		return err
	}
	if len(s.views) == 2 {
		s.drop(s.views[1])
	}
	s.views = append(s.views[:1], v)
	s.note(&Event{Type: eventCompare, Policy: v.name})
	return nil
}

// branch opens a timeline with another policy that goes on from the first view's past: the clean pass is run on every latent
// that is remembered.
func (s *scene) branch(ctx context.Context, policy string) (v *view, err error) {
	policy, err = s.model.policy(policy)
	if err != nil {
		return nil, err
	}
	setup := s.setup
	setup.Policy, setup.Prompt = policy, &s.prompt
	p, err := s.model.Plan(setup)
	if err != nil {
		return nil, err
	}
	if err := s.entry.grow(p.Bytes); err != nil {
		return nil, err
	}
	v = &view{name: policy, bytes: p.Bytes}
	if s.past.whole {
		v.Timeline, err = p.Open(ctx)
	} else {
		v.Timeline, err = p.Resume(ctx, s.past.chunks[0].heading)
	}
	if err != nil {
		s.grow(-p.Bytes)
		return nil, err
	}
	for _, c := range s.past.chunks {
		if err := v.Force(ctx, c.latent, c.action); err != nil {
			s.drop(v)
			return nil, err
		}
	}
	return v, nil
}

// grow gives bytes back, which cannot fail.
func (s *scene) grow(bytes int64) {
	if err := s.entry.grow(bytes); err != nil {
		panic(fmt.Sprintf("serve: %v", err))
	}
}

func (s *scene) drop(v *view) {
	v.Close()
	s.grow(-v.bytes)
}

// reset begins again. The bytes of the views may change with the setup; they are charged before anything is closed.
func (s *scene) reset(ctx context.Context, setup Setup) (start []video.Frame, err error) {
	setup.Policy = s.views[0].name
	compare := ""
	if len(s.views) == 2 {
		compare = s.views[1].name
	}
	bytes, err := need(s.model, setup, compare)
	if err != nil {
		return nil, err
	}
	held := pastBytes(s.model)
	for _, v := range s.views {
		held += v.bytes
	}
	if err := s.entry.grow(bytes - held); err != nil {
		return nil, err
	}
	for _, v := range s.views {
		v.Close()
	}
	s.views = s.views[:0]
	s.note(&Event{Type: eventReset, Setup: &setup})
	return s.begin(ctx, setup, compare)
}

// apply makes a logged event happen again.
func (s *scene) apply(ctx context.Context, e *Event) (err error) {
	switch e.Type {
	case eventAction:
		err = s.steer(e.Action)
	case eventPrompt:
		_, err = s.setPrompt(ctx, e.Prompt)
	case eventPolicy:
		err = s.setPolicy(ctx, e.View, e.Policy)
	case eventCompare:
		err = s.compare(ctx, e.Policy)
	case eventReset:
		_, err = s.reset(ctx, *e.Setup)
	case eventDigest, eventEnd:
		if got := s.sum(); got != e.SHA256 {
			err = &DivergedError{Chunk: s.chunk, Want: e.SHA256, Got: got}
		}
	}
	return err
}

// DivergedError says that a replay made other frames than the log's.
type DivergedError struct {
	Chunk     int
	Want, Got string
}

// Error names the chunk before which the frames differ.
func (e *DivergedError) Error() string {
	return fmt.Sprintf("frames differ from the log's before chunk %d: sha256 %.16s, the log says %.16s", e.Chunk, e.Got, e.Want)
}

// Close gives all memory back; the entry stays the caller's.
func (s *scene) Close() {
	for _, v := range s.views {
		v.Close()
	}
	s.views = nil
}
