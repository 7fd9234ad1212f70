package model

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Places are the folders where models are looked for when no path is given, in this order.
type Places struct {
	// Hubs are Hugging Face caches (models--owner--name/snapshots/...); nothing is copied out of them.
	Hubs []string
	// Stores are folders of the user's own, with model folders or files in them.
	Stores []string
}

// UsualPlaces reads the environment as Hugging Face's tools do; getenv is os.Getenv. The own store is LONGTAKE_MODELS, else
// longtake/models in the user's data folder.
func UsualPlaces(getenv func(string) string) (p Places) {
	home := getenv("HOME")
	if home == "" {
		home = getenv("USERPROFILE")
	}
	in := func(env string, under ...string) bool {
		if v := getenv(env); v != "" {
			p.Hubs = append(p.Hubs, filepath.Join(append([]string{v}, under...)...))
			return true
		}
		return false
	}
	switch {
	case in("HF_HUB_CACHE"), in("HUGGINGFACE_HUB_CACHE"), in("HF_HOME", "hub"), in("XDG_CACHE_HOME", "huggingface", "hub"):
	case home != "":
		p.Hubs = append(p.Hubs, filepath.Join(home, ".cache", "huggingface", "hub"))
	}
	switch data := getenv("XDG_DATA_HOME"); {
	case getenv("LONGTAKE_MODELS") != "":
		p.Stores = filepath.SplitList(getenv("LONGTAKE_MODELS"))
	case data != "":
		p.Stores = []string{filepath.Join(data, "longtake", "models")}
	case home != "":
		p.Stores = []string{filepath.Join(home, ".local", "share", "longtake", "models")}
	}
	return p
}

// World finds a world model's weights: path is a folder with its config.json, or the name of such a folder in one of the stores. ok
// is false where there is neither.
func (p Places) World(path string) (file string, ok bool) {
	dirs := []string{path}
	if validName(path) {
		for _, store := range p.Stores {
			dirs = append(dirs, filepath.Join(store, path))
		}
	}
	for _, dir := range dirs {
		raw, err := beside(dir, "config.json", nil)
		if err != nil || !strings.Contains(string(raw), worldFormat) {
			continue
		}
		if found, _ := filepath.Glob(filepath.Join(globEscape(dir), "*.safetensors")); len(found) == 1 {
			return found[0], true
		}
	}
	return "", false
}

// validName reports whether a model in a store may be called so: small letters, digits, "-", "_" and ".", a letter or digit first.
func validName(name string) bool {
	for i, r := range name {
		plain := 'a' <= r && r <= 'z' || '0' <= r && r <= '9'
		if !plain && (i == 0 || r != '-' && r != '_' && r != '.') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

// Source names a model's files. Model is a family's name, a folder or a network's file; what else is empty is looked for
// beside it, then in Places.
type Source struct {
	Model string
	// Family overrules what the file's name says.
	Family string
	// Wan is the folder with text encoder and VAE ("--ckpt_dir" of Wan's own program); Text, Tokenizer, VAE and TinyVAE are
	// single files.
	Wan, Text, Tokenizer, VAE, TinyVAE string
	Places                             Places
}

// Files are the files of a model, found. Missing ones are "".
type Files struct {
	Family                            Family
	Network, Adapter, Text, Tokenizer string
	VAE, TinyVAE                      string
	Config                            string // config.json of the Wan folder
	looked                            []string
	exact                             bool // the family was said, not guessed
}

// Names of the files that all families share.
const (
	textFile = "models_t5_umt5-xxl-enc-bf16.pth"
	vaeFile  = "Wan2.1_VAE.pth"
)

var tokenizerFiles = []string{"google/umt5-xxl/tokenizer.json", "google/umt5-xxl/spiece.model", "tokenizer/tokenizer.json", "tokenizer/spiece.model", "tokenizer.json", "spiece.model"}
var tinyFiles = []string{"taew2_1.safetensors", "taew2_1.pth"}

// MissingError says which file is missing, where it was looked for and where it is usually had.
type MissingError struct {
	Model, What, File string
	Looked            []string
	Usual             string
}

// Error is one line.
func (e *MissingError) Error() string {
	const most = 6
	looked := e.Looked
	more := ""
	if len(looked) > most {
		looked, more = looked[:most], fmt.Sprintf(" and %d more folders", len(e.Looked)-most)
	}
	return fmt.Sprintf("model %s: %s is missing: no %s in %s%s; it is usually had from %s", e.Model, e.What, e.File, strings.Join(looked, ", "), more, e.Usual)
}

// Find finds a model's network and what can be found of the rest. The error is a *MissingError when there is no network.
func (s Source) Find() (f Files, err error) {
	if s.Family != "" {
		known, ok := FamilyNamed(s.Family)
		if !ok {
			return f, fmt.Errorf("family %q: known are %s", s.Family, familyNames())
		}
		f.Family, f.exact = known, true
	}
	if err := s.network(&f); err != nil {
		return f, err
	}
	s.companions(&f)
	return f, nil
}

func familyNames() string {
	var out []string
	for _, f := range families {
		out = append(out, f.Name)
	}
	return strings.Join(out, ", ")
}

// network finds the network's file and its family.
func (s Source) network(f *Files) error {
	info, err := os.Stat(s.Model)
	switch {
	case err == nil && !info.IsDir():
		f.Network = s.Model
		if !f.exact {
			f.Family = familyOfName(s.Model)
		}
		f.looked = climb(filepath.Dir(s.Model))
		return nil
	case err == nil:
		f.looked = climb(s.Model)
		return s.inFolder(f, s.Model)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("model %s: %w", s.Model, err)
	}
	known, ok := FamilyNamed(s.Model)
	if !ok {
		return fmt.Errorf("model %s: no such file or folder, and not a name: known are %s, %s", s.Model, TinyWorld, familyNames())
	}
	f.Family, f.exact = known, true
	f.looked = s.folders(known.Hub, known.Name)
	for _, dir := range f.looked {
		if f.Network = firstFile(dir, known.Files); f.Network != "" {
			return nil
		}
	}
	return &MissingError{s.Model, "the network", path.Base(known.Files[0]), f.looked, "huggingface.co/" + known.Hub[0]}
}

// inFolder finds a family's file in a folder, else the only weight file that is there.
func (s Source) inFolder(f *Files, dir string) error {
	for _, known := range families {
		if f.exact && known.Name != f.Family.Name {
			continue
		}
		if file := firstFile(dir, known.Files); file != "" {
			f.Network, f.Family = file, known
			return nil
		}
	}
	var found []string
	for _, pattern := range []string{
		"*.index.json", "diffusion_pytorch_model*.safetensors", "model.pt", "*.safetensors", "*.pt",
		"transformer/*.index.json", "transformer/*.safetensors", "checkpoints/*.pt", "checkpoints/*.safetensors",
	} {
		names, _ := filepath.Glob(filepath.Join(globEscape(dir), pattern))
		names = slices.DeleteFunc(names, func(n string) bool { return notNetwork(filepath.Base(n)) })
		if len(names) > 0 {
			found = names
			break
		}
	}
	switch len(found) {
	case 0:
		return &MissingError{dir, "the network", "checkpoint of a known family (such as " + families[0].Files[0] + ")", []string{dir}, "huggingface.co/" + families[0].Hub[0]}
	case 1:
		f.Network = found[0]
		if !f.exact {
			f.Family = familyOfName(found[0])
		}
		return nil
	}
	return fmt.Errorf("model %s: several files may be the network (%s): name the one that is meant", dir, strings.Join(found[:min(len(found), 4)], ", "))
}

// notNetwork recognises by name what lies beside networks.
func notNetwork(name string) bool {
	lower := strings.ToLower(name)
	for _, part := range []string{"taew", "taehv", "lighttae", "vae", "lora", "t5", "clip"} {
		if strings.Contains(lower, part) {
			return true
		}
	}
	return false
}

// familyOfName guesses a family from a path; a network says nothing of how it is to be run. Self-Forcing is the plainest.
func familyOfName(name string) Family {
	lower := strings.ToLower(filepath.ToSlash(name))
	for _, c := range []struct{ part, family string }{
		{"rolling", "rolling-forcing"}, {"longlive", "longlive"}, {"krea", "wan-causal-14b"}, {"14b", "wan-causal-14b"},
		{"causvid", "causvid"}, {"autoregressive_checkpoint", "causvid"}, {"v2v", "causvid"},
	} {
		if strings.Contains(path.Base(lower), c.part) || strings.Contains(path.Base(path.Dir(lower)), c.part) {
			f, _ := FamilyNamed(c.family)
			return f
		}
	}
	return families[0]
}

// companions finds what belongs to a network: beside it, in the Wan folder, in the caches.
func (s Source) companions(f *Files) {
	wan := f.Family.Wan
	dirs := slices.Clone(f.looked)
	if s.Wan != "" {
		dirs = append([]string{s.Wan}, dirs...)
	}
	dirs = append(dirs, s.folders([]string{"Wan-AI/" + wan}, wan)...)
	var all []string
	for _, d := range dirs {
		all = append(all, d, filepath.Join(d, "wan_models", wan), filepath.Join(d, wan))
	}
	f.looked = slices.DeleteFunc(slices.Compact(all), func(d string) bool { _, err := os.Stat(d); return err != nil })
	pick := func(given string, names ...string) string {
		if given != "" {
			return given
		}
		for _, d := range f.looked {
			if file := firstFile(d, names); file != "" {
				return file
			}
		}
		return ""
	}
	f.Text = pick(s.Text, textFile, "models_t5_umt5-xxl-enc-bf16.safetensors", "text_encoder/model.safetensors.index.json", "text_encoder/model.safetensors")
	f.VAE = pick(s.VAE, vaeFile, "Wan2.1_VAE.safetensors", "vae/diffusion_pytorch_model.safetensors")
	f.Config = pick("", "config.json")
	f.Tokenizer = pick(s.Tokenizer, tokenizerFiles...)
	f.TinyVAE = pick(s.TinyVAE, tinyFiles...)
	for _, d := range s.folders([]string{"madebyollin/taehv"}, "taehv") {
		if f.TinyVAE == "" {
			f.TinyVAE = firstFile(d, tinyFiles)
		}
	}
	if f.Family.Adapter != "" {
		f.Adapter = firstFile(filepath.Dir(f.Network), []string{f.Family.Adapter})
	}
}

// folders are where a repository, or a folder of a name, may be: the caches' snapshots, then the stores.
func (s Source) folders(repositories []string, name string) (out []string) {
	for _, hub := range s.Places.Hubs {
		for _, r := range repositories {
			out = append(out, snapshots(filepath.Join(hub, "models--"+strings.ReplaceAll(r, "/", "--")))...)
		}
	}
	for _, store := range s.Places.Stores {
		out = append(out, filepath.Join(store, name), store)
	}
	return out
}

// snapshots are a cached repository's versions, the one of the main branch first. A repository that is not there stays as its
// folder, for messages.
func snapshots(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		return []string{dir}
	}
	main, _ := os.ReadFile(filepath.Join(dir, "refs", "main"))
	var out []string
	for _, e := range entries {
		at := filepath.Join(dir, "snapshots", e.Name())
		if e.Name() == strings.TrimSpace(string(main)) {
			out = append([]string{at}, out...)
		} else {
			out = append(out, at)
		}
	}
	return out
}

// climb returns a folder and those above it that may be a checkout: checkpoints/x.pt has its wan_models one up.
func climb(dir string) []string {
	out := []string{dir}
	for range 2 {
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		out, dir = append(out, up), up
	}
	return out
}

// firstFile returns the first of the names that is a file in dir, with or without the folders in front of it; "" without.
func firstFile(dir string, names []string) string {
	for _, n := range names {
		for _, at := range []string{n, path.Base(n)} {
			if at != n && slices.Contains(plainNames, at) {
				continue
			}
			file := filepath.Join(dir, filepath.FromSlash(at))
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				return file
			}
		}
	}
	return ""
}

// plainNames are names of files that say nothing without their folder.
var plainNames = []string{"model.pt", "model.safetensors", "model.safetensors.index.json", "diffusion_pytorch_model.safetensors"}

// globEscape keeps a folder's own name from being a pattern.
func globEscape(dir string) string {
	return strings.NewReplacer("[", `\[`, "*", `\*`, "?", `\?`, `\`, `\\`).Replace(dir)
}
