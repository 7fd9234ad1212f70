package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/accel/tempcache"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
)

// resolved is the policy of an item.
func resolved(t testing.TB, e *rollout.Engine, item string) chosen {
	t.Helper()
	f, err := parsePolicy(item)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.resolve(e)
	if err != nil {
		t.Fatalf("%s: %v", item, err)
	}
	return c
}

func TestPoliciesAreWhatTheirItemsSay(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	for item, want := range map[string]string{
		"full":                               "full",
		"window":                             "window 32 + 0 anchor",
		"window:window=16,anchor=2":          "window 16 + 2 anchor",
		" window : window=16 , sink_size=2 ": "window 16 + 2 anchor",
		"threshold=0.8,cache=tempcache":      "tempcache 0.8 spatial exact mean change 3.5, recent 2 + 0 anchor",
		"tempcache:budget=12f,window=3":      "tempcache 0.9 spatial exact mean change 3.5, recent 3 + 0 anchor, 12 frames",
		"tempcache:search=lsh,keep=newest":   "tempcache 0.9 spatial lsh64 newest change 3.5, recent 2 + 0 anchor",
		"tempcache:search=quant4":            "tempcache 0.9 spatial quant4 mean change 3.5, recent 2 + 0 anchor",
		"tempcache:paper-mode":               tempcache.Paper().String(),
		"tempcache:paper-mode,threshold=0.5": strings.Replace(tempcache.Paper().String(), "0.9", "0.5", 1),
		"preset:exact":                       "full",
		"exact":                              "full",
		"preset:exact,cache=window,window=9": "window 9 + 0 anchor",
		"preset:fast,cache=full":             "full", // the preset's budget belongs to its cache
		"preset:fast,budget=20f":             strings.Replace(resolved(t, e, "fast").Policy.Cache, "26 frames", "20 frames", 1),
		"pose:window=8,retrieve=3":           "pose: window 8 + 3 by pose, store 64 MiB",
	} {
		if f, err := parsePolicy(strings.ReplaceAll(item, " ", "")); err != nil {
			t.Errorf("%s: %v", item, err)
		} else if c, err := f.resolve(e); err != nil || c.Keeps.String() != want || c.Policy.Cache != want {
			t.Errorf("%s is %v (%v), want %s", item, c.Policy, err, want)
		}
	}
	sparse := resolved(t, e, "full:self=annsa,self-mode=paper,self-match=quant4,self-tile=8,self-no-drop")
	if o, ok := sparse.Looks.(annsa.Options); !ok || o.Tile != 8 || !o.NoDrop || o.Matcher.String() != "quant4" || sparse.Policy.Self != o.String() {
		t.Errorf("annsa is %+v, said %q", sparse.Looks, sparse.Policy.Self)
	}
	both := resolved(t, e, "full:self=annsa,self-buckets=cross,cross=annca,cross-top=3,cross-match=exact")
	a, b := both.Looks.(annsa.Options), both.Reads.(annca.Options)
	if a.Queries == nil || a.Queries != b.Queries || b.Top != 3 || b.All || b.Matcher.String() != "exact" {
		t.Errorf("annsa %+v and annca %+v do not share queries", a, b)
	}
	told := resolved(t, e, "full:self=annsa,self-buckets=cross")
	if b := told.Reads.(annca.Options); !b.All || b.Queries == nil || b.Queries != told.Looks.(annsa.Options).Queries {
		t.Errorf("dense cross attention does not tell its queries: %+v", told.Reads)
	}
	if c := resolved(t, e, "tempcache:by-query"); c.Shows == nil {
		t.Error("a cache that matches by query does not see queries")
	}
}

func TestADefaultRemembersByPoseWhereActionsGiveOne(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	two := 2
	for _, c := range []struct {
		flags policyFlags
		want  string
	}{
		{policyFlags{}, "pose: window 6 + 2 by pose, store 64 MiB"},
		{policyFlags{Window: &two}, "window 2 + 0 anchor"},
		{policyFlags{Anchor: &two}, "window 32 + 2 anchor"},
	} {
		if got, err := c.flags.resolve(e); err != nil || got.Policy.Cache != c.want {
			t.Errorf("%s: %s (%v), want %s", c.flags.text(), got.Policy.Cache, err, c.want)
		}
	}
	e.Advance = nil
	if got, err := (policyFlags{}).resolve(e); err != nil || got.Policy.Cache != "window 32 + 0 anchor" {
		t.Errorf("without poses: %s (%v)", got.Policy.Cache, err)
	}
}

func TestEveryPresetCanBeRunAndSaysWhatItMeans(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	for name := range presets {
		c := resolved(t, e, name)
		if c.Policy.Preset != name || c.Policy.Cache == "" || c.Policy.Self == "" || c.Policy.Cross == "" {
			t.Errorf("%s: %+v", name, c.Policy)
		}
	}
}

func TestPoliciesThatCannotBeAreRefusedWithAReason(t *testing.T) {
	e, dir := modeltest.TinyWorld(t, cpu.Options{}), t.TempDir()
	for name, text := range map[string]string{"no.json": "nothing", "other.json": `{"format": "longtake-annsa-profile-v1", "model": "other", "hash": "0"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for item, want := range map[string]string{
		"preset:bold":                            `--preset "bold": known are balanced, exact, fast, paper, places`,
		"lru:window=3":                           `--preset "lru": known are`,
		"window:width=3":                         "unknown flag --width",
		"window:window=x":                        "--window",
		"cache=lru":                              `--cache "lru": known are full, pose, tempcache, window`,
		"full:self=some":                         `--self "some": known are`,
		"full:cross=some":                        `--cross "some": known are`,
		"window:threshold=0.5":                   "--threshold has no meaning with --cache window, only with tempcache",
		"preset:exact,budget=8f":                 "--cache-budget has no meaning with --cache full",
		"full:self-tile=4":                       "--self-tile has no meaning with --self dense, only with annsa",
		"tempcache:threshold=7":                  "merging threshold 7",
		"tempcache:budget=2f":                    "need at least 3",
		"tempcache:budget=100":                   "need at least",
		"tempcache:budget=1x":                    `--cache-budget "1x": write latent frames as 12f`,
		"tempcache:search=warm":                  `--search: matcher "warm": known are exact`,
		"tempcache:budget=9f,budget-shares=1+x":  `--budget-shares "1+x": write layers, heads, or numbers`,
		"tempcache:budget=9f,budget-shares=1+2":  "shares [1 2] of a budget",
		"tempcache:keep=all":                     `--keep "all": known are mean`,
		"tempcache:compare-space=time":           `--compare-space "time": known are rotated`,
		"pose:budget=3f":                         "too small: 10 frames need at least",
		"full:self=annsa,self-fraction=2":        "fraction 2",
		"full:self=annsa,self-mode=best":         `--self-mode "best": known are ours, paper`,
		"full:self=annsa,self-buckets=all":       `--self-buckets "all": known are cross, own`,
		"full:cross=annca,cross-top=0":           "annca: matcher exact has no buckets to share",
		"full:cross=annca,cross-mode=best":       `--cross-mode "best": known are ours, paper`,
		"full:cross-top=2":                       "--cross-top has no meaning with --cross dense, only with annca",
		"full:self=annsa,profile=DIR/gone":       "--profile: read DIR/gone: no such file",
		"full:self=annsa,profile=DIR/no.json":    "--profile: annsa profile",
		"full:self=annsa,profile=DIR/other.json": "--profile: annsa profile is of model other",
	} {
		f, err := parsePolicy(strings.ReplaceAll(item, "DIR", dir))
		if err == nil {
			_, err = f.resolve(e)
		}
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), strings.ReplaceAll(want, "DIR", dir)) {
			t.Errorf("%s: %v, want %s", item, err, want)
		}
	}
}

func TestBudgetsAreFramesOrBytes(t *testing.T) {
	for s, want := range map[string][2]int64{
		"12f": {12, 0}, "4096": {0, 4096}, "64MiB": {0, 64 << 20}, "64M": {0, 64 << 20}, "1.5GiB": {0, 3 << 29}, "2k": {0, 2048}, "7B": {0, 7},
	} {
		if f, b, err := parseBudget(s); err != nil || int64(f) != want[0] || b != want[1] {
			t.Errorf("%s is %d frames, %d bytes, %v", s, f, b, err)
		}
	}
	for _, s := range []string{"", "f", "0f", "-3f", "1.5f", "0", "-1", "x", "MiB", "NaN", "Inf", "1e99", "12 f"} {
		if f, b, err := parseBudget(s); err == nil {
			t.Errorf("%q passed as %d frames, %d bytes", s, f, b)
		}
	}
}

func TestPresetExactIsThePlainDenseEngineBitByBit(t *testing.T) {
	args := []string{"generate", "--frames", "5", "--steps", "1", "--seed", "7", "--json", "--quiet", "--device", "cpu", "--preset", "exact",
		"-o", filepath.Join(t.TempDir(), "a.y4m")}
	r := parse[record](t, succeed(t, args...).out)
	if q := r.Request; q.Preset != "exact" || q.Policy != "full" || q.Cache != "full" || q.Self != "dense" || q.Cross != "dense" {
		t.Errorf("the record says %+v", q)
	}
	e := modeltest.TinyWorld(t, cpu.Options{})
	g := generateCommand{Frames: new(5), Seed: 7, Steps: 1, Start: "sim", Actions: "auto"}
	p, err := g.makePlan(nil, models["tinyworld"])
	if err != nil {
		t.Fatal(err)
	}
	p.setStart(64, 64)
	p.request.Cache = kvcache.Window{Recent: kvcache.Full}
	s, err := e.NewSession(t.Context(), p.request)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	frames, _, err := roll(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	h.Write(p.request.Start[0].Pix)
	for _, f := range frames {
		h.Write(f.Pix)
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != r.FramesHash {
		t.Errorf("frames %s, of the dense engine %s", r.FramesHash, got)
	}
}

func TestFlagsOfAPolicyComeFirstAmongTheServed(t *testing.T) {
	fast, window := "fast", 8
	f := policyFlags{Preset: &fast, Window: &window}
	names, items, err := servedPolicies(f.before(served))
	if err != nil || len(names) < 2 || names[0] != "yours" || items[0] != f.text() || names[1] != "pose" {
		t.Fatalf("%q %q %v", names, items, err)
	}
	if got, err := parsePolicy(items[0]); err != nil || got.text() != f.text() {
		t.Errorf("%q came back as %q, %v", f.text(), got.text(), err)
	}
	if got := (policyFlags{}).before(served); got != served {
		t.Errorf("without flags: %q", got)
	}
}
