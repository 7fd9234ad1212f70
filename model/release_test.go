package model

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

func TestReleasesSayWhatTheirFilesAre(t *testing.T) {
	for _, r := range Releases() {
		if !validName(r.Name) || r.Licence == "" || r.About == "" || r.Width <= 0 || r.Height <= 0 || len(r.Files) == 0 {
			t.Errorf("%+v lacks something", r)
		}
		if _, family := FamilyNamed(r.Name); family || r.Name == TinyWorld {
			t.Errorf("%s is the name of another model", r.Name)
		}
		for _, f := range r.Files {
			if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != 32 || f.SHA256 != strings.ToLower(f.SHA256) || f.Bytes <= 0 {
				t.Errorf("%s: %+v", r.Name, f)
			}
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for what, change := range map[string]func(c map[string]any){
		"another format":             func(c map[string]any) { c["format"] = "tinyworld-v9" },
		"no pixels":                  func(c map[string]any) { c["image"] = []int{0, 64, 3} },
		"fewer than none":            func(c map[string]any) { c["image"] = []int{-64, -64, 3} },
		"pixels without end":         func(c map[string]any) { c["image"] = []int{1 << 40, 1 << 40, 3} },
		"grey":                       func(c map[string]any) { c["image"] = []int{64, 64, 1} },
		"patches that do not fit":    func(c map[string]any) { c["image"] = []int{100, 64, 3} },
		"patches of nothing":         func(c map[string]any) { c["patch"] = 0 },
		"heads that do not fit":      func(c map[string]any) { c["heads"] = 3 },
		"patches lying backwards":    func(c map[string]any) { c["rope"].(map[string]any)["unit_hw"] = -0.5 },
		"pairs that fill no head":    func(c map[string]any) { c["rope"].(map[string]any)["split_t_h_w"] = []int{2, 2, 2} },
		"places without wavelengths": func(c map[string]any) { c["place_waves"] = []float64{0} },
	} {
		var c map[string]any
		if err := json.Unmarshal(tinyConfig, &c); err != nil {
			t.Fatal(err)
		}
		change(c)
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseWorld(raw); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
