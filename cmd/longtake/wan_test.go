package main

import (
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"longtake/internal/synth"
	"longtake/video"
)

// tinySet writes a synthetic set of a family into a new folder.
func tinySet(t testing.TB, family string, change func(*synth.Set)) string {
	t.Helper()
	s, ok := synth.TinySet().Family(family)
	if !ok {
		t.Fatalf("no layout %q", family)
	}
	if change != nil {
		change(&s)
	}
	dir := t.TempDir()
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// small are flags that make little work: 3x2 tokens a frame.
var small = []string{"generate", "--size", "48x32", "--prompt", "a cat in the sea", "--scale", "1", "--quiet", "--json"}

// wanRun generates and returns the record.
func wanRun(t testing.TB, args ...string) record {
	t.Helper()
	return parse[record](t, succeed(t, append(append([]string(nil), small...), args...)...).out)
}

func TestEveryFamilyMakesAVideoFromItsFiles(t *testing.T) {
	hashes := map[string]string{}
	for _, family := range []string{"self-forcing", "rolling-forcing", "longlive", "causvid", "wan-causal-14b"} {
		t.Run(family, func(t *testing.T) {
			dir, out := tinySet(t, family, nil), filepath.Join(t.TempDir(), "a.webm")
			args := []string{"--model", dir, "--frames", "25", "-o", out}
			r := wanRun(t, args...)
			if r.Model.Name != family || r.Video.Width != 48 || r.Video.Height != 32 || r.Video.FPS != 16 || r.Request.Frames != 25 {
				t.Errorf("record says %+v %+v", r.Model, r.Video)
			}
			if (r.Model.Files["adapter"] != "") != (family == "longlive") || r.Model.Files["text"] == "" {
				t.Errorf("files %v", r.Model.Files)
			}
			if r.Memory.Predicted < r.Memory.Weights+r.Memory.Session {
				t.Errorf("predicted %d, taken %d + %d", r.Memory.Predicted, r.Memory.Weights, r.Memory.Session)
			}
			if info, err := os.Stat(out); err != nil || info.Size() < 500 {
				t.Errorf("video: %v %v", info, err)
			}
			if _, err := os.Stat(out + ".json"); err != nil {
				t.Error(err)
			}
			args[len(args)-1] = filepath.Join(filepath.Dir(out), "b.y4m")
			args = append(args, "--frames", "13", "--vae", "tiny")
			r = wanRun(t, args...)
			if again := wanRun(t, append(args, "--threads", "1")...); again.FramesHash != r.FramesHash {
				t.Errorf("one thread makes %s, all make %s", again.FramesHash, r.FramesHash)
			}
			if other := wanRun(t, append(args, "--seed", "1")...); other.FramesHash == r.FramesHash {
				t.Error("another seed makes the same frames")
			}
			for name, hash := range hashes {
				if hash == r.FramesHash {
					t.Errorf("the same frames as %s", name)
				}
			}
			hashes[family] = r.FramesHash
		})
	}
}

func TestPresetExactIsDenseToTheBit(t *testing.T) {
	dir, out := tinySet(t, "self-forcing", nil), filepath.Join(t.TempDir(), "a.y4m")
	run := func(args ...string) record {
		return wanRun(t, append([]string{"--model", dir, "--frames", "33", "--vae", "tiny", "-o", out}, args...)...)
	}
	want := run("--cache", "full", "--self", "dense", "--cross", "dense").FramesHash
	// Nine latent frames fit into the default window.
	for name, args := range map[string][]string{
		"preset exact": {"--preset", "exact"}, "default": nil, "local attention of all": {"--local-attn-size", "-1"},
	} {
		if got := run(args...).FramesHash; got != want {
			t.Errorf("%s makes %s, dense %s", name, got, want)
		}
	}
	if got := run("--local-attn-size", "6", "--anchor", "0").FramesHash; got == want {
		t.Error("a window of 6 latent frames changes nothing")
	}
}

func TestTheModulesWorkOnWan(t *testing.T) {
	dir, out := tinySet(t, "self-forcing", nil), filepath.Join(t.TempDir(), "a.y4m")
	prompt := strings.Repeat("a cat walks in the sea of night, 7 days & more; ", 3)
	seen := map[string]string{}
	for _, args := range []string{
		"--preset exact", "--preset fast", "--preset balanced", "--preset paper", "--cache tempcache --cache-budget 6f --threshold 0.5",
		"--cache window --window 3 --anchor 3", "--cache full --self annsa --self-fraction 0.2 --self-least 6 --self-from 0 --self-tile 3 --self-recent 1 --self-dense 0", "--cache full --cross annca --cross-top 1 --cross-from 0",
	} {
		r := wanRun(t, append([]string{"--model", dir, "--frames", "81", "--size", "96x64", "--vae", "tiny", "--prompt", prompt, "-o", out}, strings.Fields(args)...)...)
		if strings.Contains(r.Request.Cache, "tempcache") != strings.Contains(args, "tempcache") && !strings.Contains(args, "preset") {
			t.Errorf("%s: cache %q", args, r.Request.Cache)
		}
		if other, twice := seen[r.FramesHash]; twice {
			t.Errorf("%s makes the frames of %s", args, other)
		}
		seen[r.FramesHash] = args
	}
	r := longtake(t, append(append([]string(nil), small...), "--model", dir, "--cache", "pose", "-o", out)...)
	if r.code != exitUsage || !strings.Contains(r.err, "give no pose") {
		t.Errorf("pose: %d %s", r.code, r.err)
	}
}

func TestHoweverAFileNamesItsTensorsTheFramesAreTheSame(t *testing.T) {
	plain := func(s *synth.Set) {}
	want := ""
	for _, c := range []struct {
		name   string
		change func(*synth.Set)
		args   []string
	}{
		{"generator_ema, model.", plain, nil},
		{"generator", func(s *synth.Set) { s.Root = "generator" }, []string{"--weights-key", "generator"}},
		{"flat .pt", func(s *synth.Set) { s.Root = "" }, nil},
		{"FSDP", func(s *synth.Set) {
			s.Rename = func(n string) string {
				return "model._fsdp_wrapped_module." + regexp.MustCompile(`^(blocks\.\d+\.)`).ReplaceAllString(n, "${1}_fsdp_wrapped_module.")
			}
		}, nil},
		{"safetensors", func(s *synth.Set) { s.Checkpoint, s.Rename = "model.safetensors", nil }, nil},
		{"diffusers, in shards", func(s *synth.Set) {
			s.Checkpoint, s.Rename, s.Shards = "transformer/diffusion_pytorch_model.safetensors.index.json", synth.DiffusersNet, 3
		}, nil},
	} {
		dir := tinySet(t, "self-forcing", c.change)
		r := wanRun(t, append([]string{"--model", dir, "--frames", "5", "--vae", "tiny", "-o", filepath.Join(t.TempDir(), "a.y4m")}, c.args...)...)
		if want == "" {
			want = r.FramesHash
		}
		if r.FramesHash != want {
			t.Errorf("%s: frames %s, want %s", c.name, r.FramesHash, want)
		}
	}
}

func TestAMergedAdapterIsTheConvertedOne(t *testing.T) {
	dir, out := tinySet(t, "longlive", nil), filepath.Join(t.TempDir(), "a.y4m")
	plain, lora := filepath.Join(dir, "models/longlive_base.pt"), filepath.Join(dir, "models/lora.pt")
	run := func(args ...string) string {
		return wanRun(t, append([]string{"--frames", "5", "--vae", "tiny", "--wan", filepath.Join(dir, "wan_models/Wan2.1-T2V-1.3B"),
			"--family", "longlive", "--tiny-vae-path", filepath.Join(dir, "taew2_1.pth"), "-o", out}, args...)...).FramesHash
	}
	merged := filepath.Join(t.TempDir(), "merged.safetensors")
	succeed(t, "models", "convert", plain, merged, "--lora", lora, "-q")
	want := run("--model", plain)
	if got := run("--model", merged); got != want {
		t.Errorf("converted with the adapter: %s, merged at load: %s", got, want)
	}
	if got := run("--model", plain, "--no-adapter"); got == want {
		t.Error("the adapter changes nothing")
	}
	if got := run("--model", plain, "--no-adapter", "--lora", lora+"=1"); got != want {
		t.Errorf("named adapter: %s, want %s", got, want)
	}
	if got := run("--model", plain, "--no-adapter", "--lora", lora+"=0.5"); got == want {
		t.Error("half an adapter is a whole one")
	}
}

func TestTheTextEncoderMayLeave(t *testing.T) {
	dir, out := tinySet(t, "self-forcing", nil), filepath.Join(t.TempDir(), "a.y4m")
	args := []string{"--model", dir, "--frames", "5", "--vae", "tiny", "-o", out}
	stays, leaves := wanRun(t, args...), wanRun(t, append(args, "--offload-text")...)
	if stays.FramesHash != leaves.FramesHash {
		t.Errorf("frames %s with the encoder off the device, %s with it on", leaves.FramesHash, stays.FramesHash)
	}
	if leaves.Memory.Weights >= stays.Memory.Weights {
		t.Errorf("weights of %d bytes without the encoder, %d with", leaves.Memory.Weights, stays.Memory.Weights)
	}
}

func TestNoiseOfPyTorch(t *testing.T) {
	for _, family := range []string{"self-forcing", "rolling-forcing"} {
		dir, out := tinySet(t, family, nil), filepath.Join(t.TempDir(), "a.y4m")
		args := []string{"--model", dir, "--frames", "21", "--vae", "tiny", "-o", out}
		native, torch := wanRun(t, args...), wanRun(t, append(args, "--noise", "torch-cpu")...)
		if torch.Request.Noise != "torch-cpu" || native.FramesHash == torch.FramesHash {
			t.Errorf("%s: noise %q, frames %s and %s", family, torch.Request.Noise, torch.FramesHash, native.FramesHash)
		}
		if again := wanRun(t, append(args, "--noise", "torch-cpu")...); again.FramesHash != torch.FramesHash {
			t.Errorf("%s: the same seed makes other frames", family)
		}
	}
}

func TestPromptFilesMakeAVideoEach(t *testing.T) {
	dir, out := tinySet(t, "self-forcing", nil), t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(out, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args := []string{"generate", "--size", "48x32", "--quiet", "--model", dir, "--vae", "tiny", "--scale", "1", "--frames", "21"}
	succeed(t, append(args, "--prompt-file", write("p.txt", "a cat\n\na dog in the sea\n"), "-o", filepath.Join(out, "a.webm"))...)
	for _, name := range []string{"a-0001.webm", "a-0002.webm", "a-0001.webm.json", "a-0002.webm.json"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	file := write("turns.jsonl", `{"prompts": ["a cat", "the sea at night"]}`+"\n")
	r := parse[record](t, succeed(t, append(args, "--data_path", file, "--json", "-o", filepath.Join(out, "b.webm"))...).out)
	if r.Request.Prompt != "a cat" || len(r.Request.Prompts) != 1 || r.Request.Prompts[0] != (promptRecord{9, "the sea at night"}) {
		t.Errorf("prompts %q then %+v", r.Request.Prompt, r.Request.Prompts)
	}
	one := parse[record](t, succeed(t, append(args, "--prompt", "a cat", "--json", "-o", filepath.Join(out, "c.webm"))...).out)
	if one.FramesHash == r.FramesHash {
		t.Error("the second prompt changes nothing")
	}
	for text, want := range map[string]string{"": "no prompt", "{\"prompts\": []}": "want \"prompt\"", "[1]": "line 1", "{\"prompts\": [\"a\"": "line 1"} {
		if r := longtake(t, append(args, "--prompt-file", write("bad.jsonl", text), "-o", filepath.Join(out, "d.webm"))...); r.code != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("%q: %d %s", text, r.code, r.err)
		}
	}
}

func TestAStartImageIsTheFirstFrame(t *testing.T) {
	dir, out := tinySet(t, "self-forcing", nil), filepath.Join(t.TempDir(), "frames")
	wanRun(t, "--model", dir, "--frames", "1", "-o", out)
	pictures, err := filepath.Glob(filepath.Join(out, "*.png"))
	if err != nil || len(pictures) != 1 {
		t.Fatalf("pictures %v (%v)", pictures, err)
	}
	from := pictures[0]
	r := wanRun(t, "--model", dir, "--frames", "13", "--image", from, "-o", filepath.Join(t.TempDir(), "a.y4m"))
	if r.Request.Start.Frames != 1 || r.Request.Start.Image == "" {
		t.Errorf("start %+v", r.Request.Start)
	}
	// A folder of images is a video that goes on: 13 frames of 14 are 1 and a multiple of 4, of which the rolling loop takes a chunk.
	folder := filepath.Join(t.TempDir(), "v")
	wanRun(t, "--model", dir, "--frames", "14", "--vae", "tiny", "-o", folder)
	for family, want := range map[string]int{"self-forcing": 13, "rolling-forcing": 9} {
		r := wanRun(t, "--model", dir, "--family", family, "--frames", "37", "--start", folder, "-o", filepath.Join(t.TempDir(), "c.y4m"))
		if r.Request.Start.Frames != want || r.Request.Start.Image == "" {
			t.Errorf("%s: start %+v, want %d frames", family, r.Request.Start, want)
		}
	}
	if r := longtake(t, "generate", "--frames", "2", "--start", folder, "-o", filepath.Join(t.TempDir(), "d.y4m")); r.code != exitUsage || !strings.Contains(r.err, "name one image") {
		t.Errorf("a folder for a world model: %d %s", r.code, r.err)
	}
	// The rolling loop starts from whole chunks: the image stands still for one.
	rolling := tinySet(t, "rolling-forcing", nil)
	r = wanRun(t, "--model", rolling, "--frames", "33", "--image", from, "-o", filepath.Join(t.TempDir(), "b.y4m"))
	if r.Request.Start.Frames != 9 || r.Request.Frames != 33 {
		t.Errorf("rolling: start %+v of %d frames", r.Request.Start, r.Request.Frames)
	}
}

// Large frames have policies of their own by default: a bound for TempCache, coarse tiles for AnnSA.
func TestPoliciesOfLargeFrames(t *testing.T) {
	dir, out := tinySet(t, "self-forcing", nil), filepath.Join(t.TempDir(), "a.y4m")
	run := func(args ...string) requestRecord {
		return wanRun(t, append([]string{"--model", dir, "--size", "512x256", "--frames", "1", "--vae", "tiny", "-o", out}, args...)...).Request
	}
	for args, want := range map[string][2]string{
		"--cache tempcache": {"28 frames", "dense"}, "--cache tempcache --cache-budget none": {"recent 2 + 0 anchor", "dense"},
		"--preset paper": {"28 frames", "tiles of 64 for 128 queries"}, "--self annsa": {"window", "tiles of 64 for 128 queries"},
		"--self annsa --self-tile 8 --self-query-tile 16 --self-group 4": {"window", "tiles of 8 for 16 queries"},
	} {
		q := run(strings.Fields(args)...)
		if !strings.Contains(q.Cache, want[0]) || !strings.Contains(q.Self, want[1]) || strings.Contains(args, "none") && strings.Contains(q.Cache, "28 frames") {
			t.Errorf("%s: cache %s, self %s", args, q.Cache, q.Self)
		}
	}
}

// A network with 36 input channels makes a video from an image, which is no frame of it.
func TestANetworkFromAnImage(t *testing.T) {
	dir := tinySet(t, "self-forcing", func(s *synth.Set) { s.Net.In = 36 })
	picture := func(level byte) string {
		f := video.NewFrame(96, 64)
		for i := range f.Pix {
			f.Pix[i] = level + byte(i%5)
		}
		path := filepath.Join(t.TempDir(), "image.png")
		out, err := os.Create(path)
		if err == nil {
			err = png.Encode(out, f.RGBA(nil))
		}
		if err == nil {
			err = out.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	dark, light := picture(20), picture(200)
	run := func(args ...string) record {
		return wanRun(t, append([]string{"--model", dir, "--frames", "21", "--vae", "tiny", "-o", filepath.Join(t.TempDir(), "a.y4m")}, args...)...)
	}
	a, b, merged := run("--image", dark), run("--image", light), run("--image", dark, "--preset", "fast")
	if a.FramesHash == b.FramesHash || a.Request.Start.Frames != 0 || a.Request.Start.Image == "" || a.Memory.Predicted < a.Memory.Weights {
		t.Errorf("start %+v, frames %s and %s", a.Request.Start, a.FramesHash, b.FramesHash)
	}
	if again := run("--image", dark, "--threads", "1"); again.FramesHash != a.FramesHash || merged.Request.Preset != "fast" {
		t.Error("one thread makes other frames")
	}
	args := []string{"generate", "--size", "48x32", "--prompt", "a cat", "--quiet", "--frames", "9", "--vae", "tiny", "-o", filepath.Join(t.TempDir(), "b.y4m"), "--model"}
	if r := longtake(t, append(args, dir)...); r.code != exitUsage || !strings.Contains(r.err, "from an image") {
		t.Errorf("no image: %d %s", r.code, r.err)
	}
	if r := succeed(t, "models", "inspect", filepath.Join(dir, "checkpoints/self_forcing_dmd.pt")); !strings.Contains(r.out, "image-to-video") {
		t.Errorf("inspect: %s", r.out)
	}
	clip := tinySet(t, "self-forcing", func(s *synth.Set) { s.Net.In, s.Net.CLIP = 36, true })
	if r := longtake(t, append(args, clip, "--image", dark)...); r.code != exitUsage || !strings.Contains(r.err, "CLIP") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("CLIP: %d %s", r.code, r.err)
	}
	for _, command := range []string{"compare", "bench", "serve"} {
		more := map[string][]string{"serve": {"--listen", "127.0.0.1:0", "--no-data"}}[command]
		if more == nil {
			more = []string{"--prompt", "a cat", "--frames", "9"}
		}
		if r := longtake(t, append(append([]string{command, "--size", "48x32", "--vae", "tiny", "--device", "cpu"}, more...), "--model", dir)...); r.code != exitUsage || !strings.Contains(r.err, "from an image") {
			t.Errorf("%s: %d %s", command, r.code, r.err)
		}
	}
}

// A folder as diffusers and transformers save it gives the frames of the official files, a start image that goes through the
// encoder included.
func TestAFolderOfDiffusersGivesTheSameFrames(t *testing.T) {
	official, folder := tinySet(t, "self-forcing", nil), t.TempDir()
	if err := synth.TinySet().WriteDiffusers(folder); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "frames")
	want := wanRun(t, "--model", official, "--frames", "9", "--vae", "wan", "-o", out)
	got := wanRun(t, "--model", folder, "--frames", "9", "-o", filepath.Join(t.TempDir(), "a.y4m"))
	if got.FramesHash != want.FramesHash || !strings.Contains(got.Model.Files["vae"], "vae/diffusion_pytorch_model") {
		t.Errorf("frames %s from %v, want %s", got.FramesHash, got.Model.Files, want.FramesHash)
	}
	pictures, err := filepath.Glob(filepath.Join(out, "*.png"))
	if err != nil || len(pictures) == 0 {
		t.Fatalf("pictures %v (%v)", pictures, err)
	}
	args := []string{"--frames", "9", "--vae", "wan", "--image", pictures[0], "-o", filepath.Join(t.TempDir(), "b.y4m"), "--model"}
	want, got = wanRun(t, append(args, official)...), wanRun(t, append(args, folder)...)
	if got.FramesHash != want.FramesHash {
		t.Errorf("with a start image: frames %s, want %s", got.FramesHash, want.FramesHash)
	}
	for file, looks := range map[string]string{
		"vae/diffusion_pytorch_model.safetensors": "Wan-2.1 VAE, under the names of diffusers", "text_encoder/model.safetensors.index.json": "umT5 text encoder ([512 48]), under the names of transformers",
		"transformer/diffusion_pytorch_model.safetensors.index.json": "Wan text-to-video network",
	} {
		if r := succeed(t, "models", "inspect", filepath.Join(folder, file)); !strings.Contains(r.out, looks) || strings.Contains(r.out, "missing") {
			t.Errorf("inspect %s: %s", file, r.out)
		}
	}
}

func TestModelsAreFoundInTheHubsCacheAndInTheStore(t *testing.T) {
	dir := tinySet(t, "self-forcing", nil)
	hub, store := t.TempDir(), t.TempDir()
	move := func(from, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, from), to); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HF_HOME", hub)
	t.Setenv("HF_HUB_CACHE", "")
	t.Setenv("LONGTAKE_MODELS", store)
	args := append(append([]string(nil), small...), "--model", "self-forcing", "--frames", "1", "-o", filepath.Join(t.TempDir(), "a.y4m"))
	missing := func(want ...string) {
		t.Helper()
		r := longtake(t, args...)
		for _, w := range want {
			if r.code != exitUsage || !strings.Contains(r.err, w) {
				t.Errorf("%d %s, want %q", r.code, r.err, w)
			}
		}
	}
	missing("the network is missing: no self_forcing_dmd.pt in", "huggingface.co/gdhe17/Self-Forcing")
	if err := os.Link(filepath.Join(dir, "wan_models/Wan2.1-T2V-1.3B/config.json"), filepath.Join(dir, "checkpoints/config.json")); err != nil {
		t.Fatal(err)
	}
	move("checkpoints", filepath.Join(hub, "hub/models--gdhe17--Self-Forcing/snapshots/0123/checkpoints"))
	missing("the VAE is missing: no Wan2.1_VAE.pth in", "huggingface.co/Wan-AI/Wan2.1-T2V-1.3B")
	move("wan_models/Wan2.1-T2V-1.3B", filepath.Join(store, "Wan2.1-T2V-1.3B"))
	before := tree(t, hub)
	succeed(t, args...)
	if after := tree(t, hub); after != before {
		t.Errorf("the cache was changed:\n%s\n%s", before, after)
	}
	if r := succeed(t, "models", "list"); !strings.Contains(r.out, "snapshots/0123/checkpoints/self_forcing_dmd.pt") {
		t.Errorf("list says\n%s", r.out)
	}
}

// tree lists a folder with sizes.
func tree(t testing.TB, dir string) string {
	var b strings.Builder
	if err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, p, info.Size(), info.ModTime())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestModelsVerifyInspectAndConvert(t *testing.T) {
	dir := tinySet(t, "rolling-forcing", nil)
	v := parse[verified](t, succeed(t, "models", "verify", dir, "--size", "48x32", "--json").out)
	if v.Model != "rolling-forcing" || len(v.Files) != 3 || v.Memory.Session < 1 || v.Memory.Peak < v.Memory.Weights {
		t.Errorf("verified %+v", v)
	}
	pt := filepath.Join(dir, "checkpoints/rolling_forcing_dmd.pt")
	info := parse[fileInfo](t, succeed(t, "models", "inspect", pt, "--json").out)
	if info.Kind != "network" || !info.Usable || info.Faults != "" || info.Tensors[0].Type != "f32" {
		t.Errorf("inspected %+v", info)
	}
	out := filepath.Join(t.TempDir(), "rolling.safetensors")
	succeed(t, "models", "convert", pt, out, "--dtype", "bf16")
	got := parse[fileInfo](t, succeed(t, "models", "inspect", out, "--json").out)
	if got.Parameters != info.Parameters || 2*got.Bytes != info.Bytes || !got.Usable || got.Tensors[0].Name != "blocks.0.cross_attn.k.bias" {
		t.Errorf("converted %d parameters of %d, %d bytes of %d, first %s", got.Parameters, info.Parameters, got.Bytes, info.Bytes, got.Tensors[0].Name)
	}
	if r := longtake(t, "models", "convert", pt, out); r.code != exitUsage || !strings.Contains(r.err, "--force") {
		t.Errorf("overwriting: %d %s", r.code, r.err)
	}
}

func TestTheConfigOfSelfForcingIsUnderstood(t *testing.T) {
	dir := tinySet(t, "self-forcing", nil)
	config := filepath.Join(dir, "c.yaml")
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(fmt.Sprintf(`generator_ckpt: %s # the weights
denoising_step_list:
- 1000
- 500
warp_denoising_step: true
image_or_video_shape: [1, 6, 16, 4, 6]
num_frame_per_block: 3
guidance_scale: 3.0
model_kwargs:
  timestep_shift: 5.0
  local_attn_size: 6
  sink_size: 1
seed: 5
use_ema: true
`, filepath.Join(dir, "checkpoints/self_forcing_dmd.pt")))
	args := []string{"generate", "--config_path", config, "--prompt", "a cat", "--use_taehv", "--json", "-q", "-o", filepath.Join(dir, "a.y4m")}
	r := parse[record](t, succeed(t, args...).out)
	q := r.Request
	if q.Frames != 21 || q.Steps != 2 || q.Window != 2 || q.Anchor != 1 || q.Seed != 5 || r.Video.Width != 48 || r.Video.Height != 32 {
		t.Errorf("request %+v, video %+v", q, r.Video)
	}
	for text, window := range map[string][2]int{
		`{"ar_config": {"local_attn_size": 6, "num_frame_per_chunk": 3, "sink_size": 1}, "list": [1, {"a": 2}], "none": null}`: {2, 1},
		"num_kv_cache: 6\nnum_sink_tokens: 3": {3, 3}, "realtime_causal_kv_cache_num_frames: 4\nrealtime_causal_sink_size: 2": {4, 2}, "kv_cache_num_frames: 3": {3, 0},
	} {
		write(text)
		if q := parse[record](t, succeed(t, append(args, "--model", dir, "--size", "48x32", "--frames", "1", "--task", "t2v-1.3B", "--print_peak_memory")...).out).Request; q.Window != window[0] || q.Anchor != window[1] {
			t.Errorf("%s: window %d, anchor %d, want %v", text, q.Window, q.Anchor, window)
		}
	}
	for text, want := range map[string]string{
		"{\"a\": ": "no JSON", "num_kv_cache: 2\nnum_sink_tokens: 3": "within num_kv_cache", "\tseed: 1": "tabs", "seed 1": "not \"key: value\"", "seed: 1\nseed: 2": "there twice", "- a": "without a key",
		"seed: x": "seed", "a: [1, 2": "does not end", "a: &x 1": "plain values", "context_noise: 0.1": "only 0", "local_attn_size: 0": "local_attn_size",
	} {
		write(text)
		if r := longtake(t, append(args, "--model", dir)...); r.code != exitUsage || !strings.Contains(r.err, want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%q: %d %s, want %q", text, r.code, r.err, want)
		}
	}
}

func TestLoopsAndRefreshesCanBeChosen(t *testing.T) {
	dir, out := tinySet(t, "self-forcing", nil), t.TempDir()
	turns := filepath.Join(out, "p.jsonl")
	if err := os.WriteFile(turns, []byte(`{"prompts": ["a cat", "the sea at night"]}`), 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{"generate", "--size", "48x32", "--cpu-kernel", "generic", "--quiet", "--json", "--model", dir, "--vae", "tiny", "--frames", "45", "-o", filepath.Join(out, "a.y4m")}
	run := func(more ...string) record { return parse[record](t, succeed(t, append(args, more...)...).out) }
	block, over, roll := run("--prompt", "a cat"), run("--prompt", "a cat", "--loop", "overlapped"), run("--prompt", "a cat", "--loop", "rolling")
	if over.FramesHash != block.FramesHash || over.Request.Loop != "overlapped" {
		t.Errorf("overlapped: %s of loop %q, blockwise %s", over.FramesHash, over.Request.Loop, block.FramesHash)
	}
	ahead := run("--prompt", "a cat", "--loop", "ahead")
	if ahead.FramesHash != block.FramesHash || ahead.Request.Loop != "ahead" {
		t.Errorf("ahead: %s of loop %q, blockwise %s", ahead.FramesHash, ahead.Request.Loop, block.FramesHash)
	}
	if a, b := run("--prompt-file", turns), run("--prompt-file", turns, "--loop", "ahead"); a.FramesHash != b.FramesHash {
		t.Errorf("ahead under new prompts: %s, blockwise %s", b.FramesHash, a.FramesHash)
	}
	if roll.FramesHash == block.FramesHash || roll.Request.Loop != "rolling" {
		t.Errorf("rolling: %s of loop %q", roll.FramesHash, roll.Request.Loop)
	}
	seen := map[string]string{}
	for _, refresh := range []string{"none", "chunks", "window"} {
		r := run("--prompt-file", turns, "--refresh", refresh)
		if other := seen[r.FramesHash]; other != "" {
			t.Errorf("refresh %s makes the frames of %s", refresh, other)
		}
		seen[r.FramesHash] = refresh
	}
	live := tinySet(t, "longlive", nil)
	merged := []string{"generate", "--size", "48x32", "--model", live, "--vae", "tiny", "--frames", "45", "--prompt-file", turns, "--preset", "fast", "-o", filepath.Join(out, "b.y4m")}
	if r := succeed(t, merged...); !strings.Contains(r.err, "goes on speaking of the old one") {
		t.Errorf("merged history: %s", r.err)
	}
	if r := longtake(t, append(merged, "--refresh", "window")...); r.code != exitUsage || !strings.Contains(r.err, "use a window, or refresh none") {
		t.Errorf("refresh of a merged history: %d %s", r.code, r.err)
	}
}
