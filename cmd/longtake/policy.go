package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"longtake/attention"
	"longtake/compare"
	"longtake/kvcache"
	"longtake/rollout"
)

// policyFlags are the flags of every command that runs a model: which history is kept, and what of it is looked at. Nil is
// what preset or model say. The tag "with" names the choices that a flag belongs to.
type policyFlags struct {
	Preset *string `group:"policy" placeholder:"NAME" help:"What to keep and look at, as a whole: ${presets}. The flags below change parts of it."`

	Cache         *string `group:"policy" placeholder:"KIND" help:"History that the model sees: ${policies} (full is unlimited: memory and time grow; tempcache merges what repeats; pose also reads frames made where the walker stands). Default: pose for a model whose actions give one, else the model's window; window where --window or --anchor are given."`
	Window        *int    `group:"policy" aliases:"kv-cache-num-frames" placeholder:"N" with:"cache=window,tempcache,pose" help:"Latest frames kept as they are. Default: the model's own; 2 of tempcache, 16 of pose."`
	Anchor        *int    `group:"policy" aliases:"sink-size" placeholder:"N" with:"cache=window,tempcache" help:"First frames kept for ever. Default: the model's own, 0 of tempcache."`
	LocalAttnSize *int    `group:"policy" placeholder:"N" with:"cache=window" help:"--window as Self-Forcing and LongLive count it: anchors and the chunk in work are part of it; -1 keeps everything."`
	CacheBudget   *string `group:"policy" aliases:"budget" placeholder:"SIZE" with:"cache=tempcache,pose" help:"Most that the cache may hold, in latent frames (12f) or bytes (64MiB); none. Default: no bound for tempcache, 28f with models on Wan-2.1; 64MiB for pose."`

	Threshold    *float64 `group:"policy" placeholder:"COSINE" with:"cache=tempcache" help:"Least cosine of two keys that are merged; 1 merges only equal ones. Default: 0.9, with models on Wan-2.1 0.92."`
	Search       *string  `group:"policy" placeholder:"HOW" with:"cache=tempcache" help:"How the nearest entry is found: exact, neighbours (near places of the picture), lsh, quant, or a matcher by name (lsh64, lsh10x4+1, quant8, pq8). Default: exact."`
	Radius       *int     `group:"policy" placeholder:"N" with:"cache=tempcache" help:"Rows and columns that neighbours looks around. Default: 2."`
	Depth        *int     `group:"policy" placeholder:"N" with:"cache=tempcache" help:"Entries of each place that neighbours looks at. Default: 6."`
	CompareSpace *string  `group:"policy" placeholder:"SPACE" with:"cache=tempcache" help:"Form in which keys are compared: spatial (before rotation by time), unrotated, rotated. Default: spatial."`
	Keep         *string  `group:"policy" placeholder:"KEY" with:"cache=tempcache" help:"Key that stands for merged ones: mean or newest. Default: mean."`
	Forget       *string  `group:"policy" placeholder:"ENTRY" with:"cache=tempcache" help:"Which entry a full cache gives up: stalest (fewest members over its age) or rarest (fewest members). Default: stalest."`
	Routing      *string  `group:"policy" placeholder:"FILE" with:"cache=tempcache" help:"Which heads ignore history and keep none, as longtake calibrate --for tempcache writes it. Default: none of them."`
	PaperMode    *bool    `group:"policy" with:"cache=tempcache" help:"TempCache as the paper has it: rotated keys, found by the query, newest kept. Other flags change parts of it."`
	ByQuery      *bool    `group:"policy" with:"cache=tempcache" help:"Find a token's entry by its query instead of its key."`
	MaxError     *float64 `group:"policy" placeholder:"E" with:"cache=tempcache" help:"Most that a merge may move logits (root mean square over recent queries)."`
	MaxChange    *float64 `group:"policy" placeholder:"C" with:"cache=tempcache" help:"Most that a merge may change what queries read: movement of logits times difference of values (root mean squares); 0: no bound. Default: 3.5, none in paper mode and with models on Wan-2.1."`
	CountCap     *float64 `group:"policy" placeholder:"N" with:"cache=tempcache" help:"Most that a merged key may count for in the logits."`
	Decay        *float64 `group:"policy" placeholder:"SHARE" with:"cache=tempcache" help:"Multiply a count by this before each merge."`
	Rest         *bool    `group:"policy" with:"cache=tempcache" help:"Sum up what a full cache forgets in one key of every head (neighbours, mean keys)."`
	Spread       *float64 `group:"policy" placeholder:"S" with:"cache=tempcache" help:"Raise a merged key's logits by what its members' spread would, for queries of this mean square; 0: not. Default: 0."`
	Retest       *int     `group:"policy" placeholder:"N" with:"cache=tempcache" help:"Compare every Nth member of an entry with its first key."`
	Floor        *float64 `group:"policy" placeholder:"COSINE" with:"cache=tempcache" help:"Least cosine at which a full cache merges its closest pair; below it forgets. Default: 0.7."`
	OneAFrame    *bool    `group:"policy" with:"cache=tempcache" help:"Let an entry take one token of a frame only."`
	Shared       *bool    `group:"policy" with:"cache=tempcache" help:"Merge alike in all heads of a layer."`
	NoCounts     *bool    `group:"policy" with:"cache=tempcache" help:"Leave the counts of merged keys out of the logits, to see what they are for."`
	BudgetShares *string  `group:"policy" placeholder:"layers|heads|A+B+..." with:"cache=tempcache" help:"Divide the budget by what the model's layers, or heads, were measured to need, or in these proportions among layers or, layer by layer, heads. Default: layers."`
	Retrieve     *int     `group:"policy" placeholder:"N" with:"cache=pose" help:"Old frames that pose reads beside the latest. Default: 2."`

	attentionFlags
}

// preset is a policy by name: a list item of --policies, and what it is for. Chunked, if not empty, is the item for models that make several
// latent frames at a time, those on Wan-2.1.
type preset struct{ item, about, chunked string }

// presets are the policies by name. Of the embedded model balanced and fast keep 16 frames as they are: fewer cost single frames more than a
// larger budget gives back. A full store unites what is at least 0.85 alike and else forgets: uniting keys that differ spoils single
// frames, forgetting costs places seen long ago (docs/results.md). Sparse attention would be held back over so few keys anyway.
var presets = map[string]preset{
	"exact": {item: "full", about: "every frame kept, everything looked at: the reference"},
	"paper": {item: "tempcache:paper-mode,self=annsa,self-mode=paper,self-match=lsh,cross=annca,cross-mode=paper",
		about: "as the paper has it: merging by query, hashed self and cross attention"},
	"balanced": {item: "tempcache:cache-budget=34f,window=16,threshold=0.92,max-change=0,floor=0.85", chunked: "tempcache:cache-budget=28f,window=8",
		about: "the last 16 frames as they are, older ones merged, within 34 frames' worth of keys; models on Wan-2.1: 8 and 28"},
	"fast": {item: "tempcache:cache-budget=26f,window=16,threshold=0.92,max-change=0,floor=0.85", chunked: "tempcache:cache-budget=20f,window=8,threshold=0.85",
		about: "the last 16 frames as they are, older ones merged, within 26 frames' worth of keys; models on Wan-2.1: 8 and 20"},
	"places": {item: "pose:cache-budget=64MiB", about: "what was seen from a place is seen there again (world models)"},
}

// chosen is a policy that is ready to run.
type chosen struct {
	compare.Entry
	kind           string // of cache
	window, anchor int
	// sized is the policy with room for so many latent frames from the start; nil if its memory does not follow from the length.
	sized func(frames int) kvcache.Policy
	// most is the most memory of a cache that grows with what a video of so many latent frames shows; nil of others.
	most func(frames int) int64
}

// rolls reports whether the engine's own loop is the rolling one, which has a cache of its own.
func (c chosen) rolls(e *rollout.Engine) bool { return e.Loop == rollout.RollingWindow }

// overlay fills what is nil in f with under's, save for what belongs to another choice than f's.
func (f policyFlags) overlay(under policyFlags) policyFlags {
	chosen := map[string]*string{"cache": f.Cache, "self": f.Self, "cross": f.Cross}
	over, below := reflect.ValueOf(&f).Elem(), reflect.ValueOf(under)
	eachFlag(over, func(field reflect.StructField, v reflect.Value) {
		if v.IsNil() && belongs(field, chosen) {
			v.Set(below.FieldByIndex(field.Index))
		}
	})
	return f
}

// eachFlag calls do for every flag, those of embedded structs included; Index leads from the outermost struct.
func eachFlag(v reflect.Value, do func(reflect.StructField, reflect.Value)) {
	for _, field := range reflect.VisibleFields(v.Type()) {
		if !field.Anonymous {
			do(field, v.FieldByIndex(field.Index))
		}
	}
}

// belongs reports whether a flag has a meaning with the choices; those that are nil do not matter.
func belongs(field reflect.StructField, choices map[string]*string) bool {
	with := field.Tag.Get("with")
	if with == "" {
		return true
	}
	choice, kinds, _ := strings.Cut(with, "=")
	c := choices[choice]
	return c == nil || slices.Contains(strings.Split(kinds, ","), *c)
}

// flagName is how a field is written on the command line.
func flagName(field reflect.StructField) string {
	if name := field.Tag.Get("name"); name != "" {
		return name
	}
	var b strings.Builder
	for i, r := range field.Name {
		if 'A' <= r && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// text is the flags as an item of --policies that means the same.
func (f policyFlags) text() string {
	var parts []string
	eachFlag(reflect.ValueOf(f), func(field reflect.StructField, v reflect.Value) {
		if !v.IsNil() {
			parts = append(parts, fmt.Sprintf("%s=%v", flagName(field), v.Elem()))
		}
	})
	return strings.Join(parts, ",")
}

// given reports whether any flag is set.
func (f policyFlags) given() bool { return f.text() != "" }

// parsePolicies reads a list such as "window:window=16; tempcache:budget=12f,threshold=0.9; preset:fast".
func parsePolicies(list string) (items []string, flags []policyFlags, err error) {
	for item := range strings.SplitSeq(list, ";") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		policy, _, _ := strings.Cut(item, " as ")
		f, err := parsePolicy(strings.TrimSpace(policy))
		if err != nil {
			return nil, nil, err
		}
		items, flags = append(items, item), append(flags, f)
	}
	if len(items) == 0 {
		return nil, nil, usagef("an empty list of policies: write such as \"window:window=16; tempcache:budget=12f; preset:fast\"")
	}
	return items, flags, nil
}

// parsePolicy reads an item: a cache, a preset's name or "preset:NAME", then flags without dashes.
func parsePolicy(item string) (f policyFlags, err error) {
	head, rest, _ := strings.Cut(item, ":")
	var args []string
	switch _, isCache := policies[head]; {
	case isCache:
		args = append(args, "--cache="+head)
	case head == "preset":
		name, more, _ := strings.Cut(rest, ",")
		args, rest = append(args, "--preset="+name), more
	case strings.Contains(head, "="):
		rest = item
	default:
		args = append(args, "--preset="+head)
	}
	for option := range strings.SplitSeq(rest, ",") {
		if option = strings.TrimSpace(option); option != "" {
			args = append(args, "--"+option)
		}
	}
	parser, err := kong.New(&f, kong.Name("policy"), kong.NoDefaultHelp(), kong.Vars(names()))
	if err != nil {
		panic(err) // the struct tags are wrong
	}
	if _, err := parser.Parse(normalize(args)); err != nil {
		return f, usagef("policy %q: %w", item, err)
	}
	return f, nil
}

// resolve turns flags into a policy for an engine.
func (f policyFlags) resolve(e *rollout.Engine) (c chosen, err error) {
	c.Name = f.text()
	if f.Preset != nil {
		p, err := named("preset", *f.Preset, presets)
		if err != nil {
			return c, err
		}
		if chunked(e) && p.chunked != "" {
			p.item = p.chunked
		}
		under, err := parsePolicy(p.item)
		if err != nil {
			return c, fmt.Errorf("preset %s: %w", *f.Preset, err)
		}
		c.Policy.Preset = *f.Preset
		f = f.overlay(under)
	}
	kinds := map[string]string{"cache": f.defaultCache(e), "self": "dense", "cross": "dense"}
	for name, choice := range map[string]*string{"cache": f.Cache, "self": f.Self, "cross": f.Cross} {
		if choice != nil {
			kinds[name] = *choice
		}
	}
	if err := f.meaningful(kinds); err != nil {
		return c, err
	}
	make, err := named("cache", kinds["cache"], policies)
	if err != nil {
		return c, err
	}
	c.kind = kinds["cache"]
	if c.rolls(e) {
		return c, f.roll(e, kinds, &c)
	}
	if err := make(f, e, &c); err != nil {
		return c, err
	}
	if err := f.attend(e, kinds, &c); err != nil {
		return c, err
	}
	c.describe(e)
	return c, nil
}

// roll is resolve for the rolling loop, which has a cache of its own and takes policies for cross attention only.
func (f policyFlags) roll(e *rollout.Engine, kinds map[string]string, c *chosen) error {
	if f.Cache != nil && *f.Cache != "full" || kinds["self"] != "dense" || f.Window != nil || f.Anchor != nil || f.LocalAttnSize != nil {
		return usagef("model %s makes its chunks in a rolling window with a cache of its own: of the policies only --cross has a meaning for it, not %s", e.Name, f.text())
	}
	if err := f.attend(e, kinds, c); err != nil {
		return err
	}
	c.kind, c.Keeps = "rolling", e.Cache
	c.describe(e)
	c.Keeps, c.Policy.Cache = nil, "rolling window of 21 latent frames"
	return nil
}

// defaultCache is the cache of a model where none is asked for: by pose where its actions give one, measured as the best by
// "eval world" (docs/model/tinyworld.md), else the model's window. Flags that only a window has mean a window.
func (f policyFlags) defaultCache(e *rollout.Engine) string {
	if e.Advance == nil || f.Window != nil || f.Anchor != nil {
		return "window"
	}
	return "pose"
}

// meaningful refuses flags that belong to other choices than those made.
func (f policyFlags) meaningful(kinds map[string]string) (err error) {
	choices := map[string]*string{}
	for name, kind := range kinds {
		choices[name] = &kind
	}
	eachFlag(reflect.ValueOf(f), func(field reflect.StructField, v reflect.Value) {
		if !v.IsNil() && !belongs(field, choices) && err == nil {
			choice, wanted, _ := strings.Cut(field.Tag.Get("with"), "=")
			if _, known := policies[kinds["cache"]]; choice != "cache" || known {
				err = usagef("--%s has no meaning with --%s %s, only with %s", flagName(field), choice, kinds[choice], strings.ReplaceAll(wanted, ",", " or "))
			}
		}
	})
	return err
}

// describe writes the policy in words.
func (c *chosen) describe(e *rollout.Engine) {
	words := func(m attention.Maker) string {
		if m == nil {
			m = attention.Dense{}
		}
		return m.String()
	}
	c.Policy.Cache, c.Policy.Self, c.Policy.Cross = c.Keeps.String(), words(c.Looks), words(c.Reads)
	if c.Name == "" {
		c.Name = "default"
	}
}

// entryOf names a policy as the user wrote it.
func (f policyFlags) entryOf(name string, e *rollout.Engine) (chosen, error) {
	c, err := f.resolve(e)
	if err != nil {
		return c, fmt.Errorf("policy %q: %w", name, err)
	}
	c.Name = name
	return c, nil
}

// parseBudget reads "12f" as latent frames, anything else as bytes: 4096, 64MiB, 1.5G.
func parseBudget(s string) (frames int, bytes int64, err error) {
	fail := usagef("--cache-budget %q: write latent frames as 12f, or bytes as 64MiB", s)
	if number, ok := strings.CutSuffix(s, "f"); ok {
		if frames, err = strconv.Atoi(number); err != nil || frames < 1 {
			return 0, 0, fail
		}
		return frames, 0, nil
	}
	digits := strings.TrimRight(s, "bBiI")
	shift := 0
	if digits != "" {
		if at := strings.IndexByte("KMGT", digits[len(digits)-1]&^0x20); at >= 0 {
			digits, shift = digits[:len(digits)-1], 10*(at+1)
		}
	}
	v, err := strconv.ParseFloat(digits, 64)
	if v *= float64(int64(1) << shift); err != nil || !(v >= 1 && v < 1<<60) {
		return 0, 0, fail
	}
	return 0, int64(v), nil
}

// put sets what was given.
func put[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// pick sets what a name stands for.
func pick[T any](flag string, name *string, to *T, known map[string]T) error {
	if name == nil {
		return nil
	}
	v, err := named(flag, *name, known)
	if err == nil {
		*to = v
	}
	return err
}

// presetsText lists the presets and what they are for.
func presetsText() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(presets)) {
		parts = append(parts, fmt.Sprintf("%s (%s)", name, presets[name].about))
	}
	return strings.Join(parts, ", ")
}
