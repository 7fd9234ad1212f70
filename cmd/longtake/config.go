package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Limits of a configuration file.
const (
	maxConfigBytes = 1 << 20
	maxConfigKeys  = 10_000
)

// readConfig fills in what the flags leave open from a file as Self-Forcing and LongLive have them, all but the cache.
func (g *generateCommand) readConfig() (map[string]configValue, error) {
	f, err := os.Open(g.Config)
	if err != nil {
		return nil, usagef("--config: read %s: %w", g.Config, cause(err))
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, usagef("--config: read %s: %w", g.Config, cause(err))
	}
	if len(raw) > maxConfigBytes {
		return nil, usagef("--config %s: larger than %d bytes", g.Config, maxConfigBytes)
	}
	values, err := parseConfig(raw)
	if err != nil {
		return nil, usagef("--config %s: %w", g.Config, err)
	}
	for _, key := range slices.Sorted(maps.Keys(configKeys)) {
		apply := configKeys[key]
		if v, ok := values[key]; ok {
			if err := apply(g, v); err != nil {
				return nil, usagef("--config %s: %s: %w", g.Config, key, err)
			}
		}
	}
	return values, nil
}

// configKeys say what the keys mean; flags that were given stay. Keys that are not here belong to training.
var configKeys = map[string]func(g *generateCommand, v configValue) error{
	"denoising_step_list": func(g *generateCommand, v configValue) error {
		if g.StepList == "" {
			g.StepList = strings.Join(v.items, ",")
		}
		return nil
	},
	"warp_denoising_step": func(g *generateCommand, v configValue) error {
		warp, err := v.truth()
		g.RawSteps = g.RawSteps || !warp
		return err
	},
	"timestep_shift":      func(g *generateCommand, v configValue) error { return v.number(&g.Shift) },
	"num_frame_per_block": func(g *generateCommand, v configValue) error { return v.count(&g.ChunkFrames) },
	"seed": func(g *generateCommand, v configValue) error {
		n, err := strconv.ParseUint(v.text(), 10, 64)
		if err == nil && g.Seed == 0 {
			g.Seed = n
		}
		return err
	},
	"num_frame_per_chunk": func(g *generateCommand, v configValue) error { return v.count(&g.ChunkFrames) }, // LightX2V
	"num_output_frames":   func(g *generateCommand, v configValue) error { return g.latents(v) },
	"generator_ckpt": func(g *generateCommand, v configValue) error {
		if g.Model == "tinyworld" {
			g.Model = v.text()
		}
		return nil
	},
	"lora_ckpt": func(g *generateCommand, v configValue) error {
		if len(g.Lora) == 0 && v.text() != "" {
			g.Lora = []string{v.text()}
		}
		return nil
	},
	"use_ema": func(g *generateCommand, v configValue) error {
		ema, err := v.truth()
		if g.WeightsKey == "" && g.UseEMA == nil {
			g.UseEMA = &ema
		}
		return err
	},
	"context_noise": func(g *generateCommand, v configValue) error {
		if n, err := strconv.ParseFloat(v.text(), 64); err != nil || n != 0 {
			return fmt.Errorf("%q: only 0 is supported", v.text())
		}
		return nil
	},
	// [batch, latent frames, channels, rows, columns] of latents.
	"image_or_video_shape": func(g *generateCommand, v configValue) error {
		if len(v.items) != 5 {
			return fmt.Errorf("%d numbers, want batch, latent frames, channels, rows, columns", len(v.items))
		}
		rows, err1 := strconv.Atoi(v.items[3])
		columns, err2 := strconv.Atoi(v.items[4])
		if err1 != nil || err2 != nil || rows < 1 || columns < 1 || rows > 1<<16 || columns > 1<<16 {
			return fmt.Errorf("rows %q and columns %q of latents", v.items[3], v.items[4])
		}
		if g.Size == "" && g.Width == 0 && g.Height == 0 {
			g.Size = fmt.Sprintf("%dx%d", 8*columns, 8*rows)
		}
		return g.latents(configValue{items: v.items[1:2]})
	},
}

// latents sets the length in latent frames, unless there is one.
func (g *generateCommand) latents(v configValue) error {
	n, err := strconv.Atoi(v.text())
	if err != nil || n < 1 || n > maxFrames {
		return fmt.Errorf("%q: want a number of latent frames", v.text())
	}
	if g.Frames == nil && g.Latent == nil {
		g.Latent = &n
	}
	return nil
}

// windowKeys are the names of a window's frames and of its anchors: Self-Forcing's and LightX2V's count the anchors and the chunk in work,
// StreamDiffusionV2's the anchors, Krea's and SGLang's neither.
var windowKeys = []struct {
	size, anchors  string
	anchored, work bool
}{
	{"local_attn_size", "sink_size", true, true}, {"num_kv_cache", "num_sink_tokens", true, false},
	{"kv_cache_num_frames", "sink_size", false, false}, {"realtime_causal_kv_cache_num_frames", "realtime_causal_sink_size", false, false},
}

// window sets the cache by the first of windowKeys that is there.
func (g *generateCommand) window(values map[string]configValue) error {
	for _, k := range windowKeys {
		v, ok := values[k.size]
		if !ok || g.given() {
			continue
		}
		size, err := strconv.Atoi(v.text())
		if err != nil || size == 0 || size < -1 || size > maxFrames {
			return usagef("--config %s: %s %q: latent frames, or -1 for all", g.Config, k.size, v.text())
		}
		kind := "window"
		if size == -1 {
			kind = "full"
			g.Cache = &kind
			return nil
		}
		anchor := 0 // upstream's default
		if s, ok := values[k.anchors]; ok {
			if anchor, err = strconv.Atoi(s.text()); err != nil || anchor < 0 || k.anchored && anchor > size {
				return usagef("--config %s: %s %q: latent frames within %s", g.Config, k.anchors, s.text(), k.size)
			}
		}
		g.Cache, g.Anchor = &kind, &anchor
		switch {
		case k.work:
			g.LocalAttnSize = &size
		case k.anchored:
			size -= anchor
			fallthrough
		default:
			g.Window = &size
		}
	}
	return nil
}

// configValue is a scalar (one item) or a list of scalars.
type configValue struct{ items []string }

func (v configValue) text() string {
	if len(v.items) != 1 {
		return ""
	}
	return v.items[0]
}

func (v configValue) truth() (bool, error) {
	switch strings.ToLower(v.text()) {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q: true or false", v.text())
}

func (v configValue) number(to *float64) error {
	n, err := strconv.ParseFloat(v.text(), 64)
	if err == nil && *to == 0 {
		*to = n
	}
	return err
}

func (v configValue) count(to *int) error {
	n, err := strconv.Atoi(v.text())
	if err == nil && *to == 0 {
		*to = n
	}
	return err
}

// parseConfig reads the part of YAML that such files use: "key: value" lines, lists in brackets or as lines "- value", and
// comments. Keys of nested maps are named with their parents ("model_kwargs.local_attn_size") and, if they are new, without.
// It is no YAML parser: anchors, tags, blocks of text and several documents are refused.
func parseConfig(raw []byte) (map[string]configValue, error) {
	p := configParser{out: map[string]configValue{}}
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		if err := p.object(raw); err != nil {
			return nil, err
		}
		return p.shorten(), nil
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxConfigBytes+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(uncomment(lines.Text()), " \t\r")
		if body := strings.TrimLeft(line, " "); body == "" || body == "---" && n == 1 {
			continue
		}
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return p.shorten(), nil
}

// shorten gives nested keys their last names, too, where these are new.
func (p *configParser) shorten() map[string]configValue {
	for _, full := range slices.Sorted(maps.Keys(p.out)) {
		if _, short, nested := cutLast(full, "."); nested && len(p.out[full].items) > 0 {
			if _, there := p.out[short]; !there {
				p.out[short] = p.out[full]
			}
		}
	}
	return p.out
}

// object reads JSON (LightX2V).
func (p *configParser) object(raw []byte) error {
	var all map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		return fmt.Errorf("no JSON: %w", err)
	}
	return p.flatten("", all, 0)
}

// flatten keeps scalars and lists of scalars.
func (p *configParser) flatten(prefix string, all map[string]any, depth int) error {
	if depth > 16 {
		return errors.New("nested more than 16 deep")
	}
	for key, v := range all {
		items, keep := []any{v}, true
		switch v := v.(type) {
		case map[string]any:
			if err := p.flatten(prefix+key+".", v, depth+1); err != nil {
				return err
			}
			continue
		case []any:
			items = v
		}
		var value configValue
		for _, x := range items {
			switch x.(type) {
			case string, json.Number, bool, nil:
				value.items = append(value.items, fmt.Sprint(x))
			default:
				keep = false
			}
		}
		if keep {
			p.out[prefix+key] = value
		}
		if len(p.out) > maxConfigKeys {
			return fmt.Errorf("more than %d keys", maxConfigKeys)
		}
	}
	return nil
}

type configParser struct {
	out  map[string]configValue
	path []configLevel
	last string // key that list items belong to
}

type configLevel struct {
	indent int
	key    string
}

// line reads a line that is not empty.
func (p *configParser) line(line string) error {
	body := strings.TrimLeft(line, " ")
	if strings.HasPrefix(body, "\t") {
		return errors.New("tabs do not indent YAML")
	}
	if body == "-" || strings.HasPrefix(body, "- ") {
		item, err := scalar(strings.TrimSpace(body[1:]))
		if p.last == "" && err == nil {
			err = errors.New("a list item without a key")
		}
		v := p.out[p.last]
		p.out[p.last] = configValue{append(v.items, item)}
		return err
	}
	key, value, ok := strings.Cut(body, ":")
	key = strings.Trim(strings.TrimSpace(key), `"'`)
	if !ok || key == "" || value != "" && value[0] != ' ' && value[0] != '\t' {
		return fmt.Errorf("%.60q is not \"key: value\"", body)
	}
	indent := len(line) - len(body)
	for len(p.path) > 0 && p.path[len(p.path)-1].indent >= indent {
		p.path = p.path[:len(p.path)-1]
	}
	if len(p.path) > 0 {
		key = p.path[len(p.path)-1].key + "." + key
	}
	if p.path = append(p.path, configLevel{indent, key}); len(p.path) > 16 {
		return errors.New("nested more than 16 deep")
	}
	items, err := inline(strings.TrimSpace(value))
	if err != nil {
		return err
	}
	p.last = key
	if _, twice := p.out[key]; twice {
		return fmt.Errorf("%.60q is there twice", key)
	}
	if p.out[key] = (configValue{items}); len(p.out) > maxConfigKeys {
		return fmt.Errorf("more than %d keys", maxConfigKeys)
	}
	return nil
}

// uncomment cuts a comment off a line: "#" at its start or after a blank, outside of quotes.
func uncomment(line string) string {
	quote := byte(0)
	for i := range len(line) {
		switch c := line[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t'):
			return line[:i]
		}
	}
	return line
}

// inline reads what stands behind a colon: nothing, a scalar, or [a, b].
func inline(value string) (items []string, err error) {
	if value == "" {
		return nil, nil
	}
	inside, isList := strings.CutPrefix(value, "[")
	if !isList {
		item, err := scalar(value)
		return []string{item}, err
	}
	inside, closed := strings.CutSuffix(inside, "]")
	if !closed {
		return nil, fmt.Errorf("the list %.60q does not end on its line", value)
	}
	for part := range strings.SplitSeq(inside, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		item, err := scalar(part)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// scalar takes quotes off and refuses what would need a YAML parser.
func scalar(s string) (string, error) {
	if len(s) > 1 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1], nil
	}
	if s != "" && strings.ContainsRune("&*!|>@`[{", rune(s[0])) {
		return "", fmt.Errorf("%.60q: only plain values and lists are read", s)
	}
	return s, nil
}
