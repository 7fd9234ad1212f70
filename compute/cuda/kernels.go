package cuda

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"runtime"
	"slices"
	"sync"
)

//go:embed kernels/types.cuh kernels/map/map.cu kernels/norm/norm.cu kernels/rope/rope.cu kernels/gather/gather.cu
//go:embed kernels/unfold/unfold.cu kernels/timeembed/timeembed.cu kernels/noise/noise.cu kernels/linear/linear.cu kernels/attendany/attendany.cu
//go:embed kernels/conv/conv.cu kernels/quant/quant.cu kernels/pixels/pixels.cu
//go:embed kernels/match/match.cu kernels/merge/merge.cu kernels/merge/*.cuh kernels/plan/plan.cu kernels/select/select.cu kernels/hash/hash.cu kernels/buckets/buckets.cu kernels/join/join.cu kernels/split/split.cu
var kernelSources embed.FS

// kernels are the functions of the loaded modules, indexed by the element types that select them (see half).
type kernels struct {
	one       [4]uintptr // dst, x
	two       [8]uintptr // dst, x, y
	norm      [4]uintptr // dst, x
	normWide  [4]uintptr
	addNorm   [6]uintptr // dst, y; the sum is F32, of the last two all are BF16, and one rounds to e4m3, too
	normRope  [8]uintptr // dst, x; then those whose threads turn all of their chunks alike
	rope      [4]uintptr // dst, x
	gather    [2]uintptr // dst
	timeembed [2]uintptr
	noise     [2]uintptr
	linear    [2]uintptr
	quant     [4]uintptr // x; then those that look for the largest
	pixels    [1]uintptr
	unfold    [3]uintptr // units of 16, 4, 2 bytes
	plan      [7]uintptr // means, groups, norms, scores, pick, keys, rest
	selects   [3]uintptr // begin, mark, copy
	hash      [2]uintptr // signs, levels
	buckets   [2]uintptr // sort, match
	join      [1]uintptr
	split     [2]uintptr // order, copy
	match     [5]uintptr // begin, fast, any, end, codes
	merge     [6]uintptr // describe, cells, around, accept, join, found
}

// kernelFile is one .cu file, the options it is compiled with, and where its functions go.
type kernelFile struct {
	name      string
	options   []string
	functions []string
	to        []uintptr
	early     bool // its kernels begin with begin of types.cuh
}

func (k *kernels) files() []kernelFile {
	return []kernelFile{
		{"map", mapOptions(mapUnroll1, mapUnroll2), []string{"map_ff", "map_fb", "map_bf", "map_bb"}, k.one[:], true},
		{"map", mapOptions(mapUnroll1, mapUnroll2), []string{"map_fff", "map_ffb", "map_fbf", "map_fbb", "map_bff", "map_bfb", "map_bbf", "map_bbb"}, k.two[:], true},
		{"norm", normOptions(normHeld), []string{"norm_ff", "norm_fb", "norm_bf", "norm_bb"}, k.norm[:], true},
		{"norm", normOptions(normHeld), []string{"addnorm_ff", "addnorm_fb", "addnorm_bf", "addnorm_bb", "addnorm_half", "addnorm_coarse"}, k.addNorm[:], true},
		{"norm", normOptions(normHeld), []string{"normrope_ff", "normrope_fb", "normrope_bf", "normrope_bb", "normrope_ff_alike", "normrope_fb_alike", "normrope_bf_alike", "normrope_bb_alike"}, k.normRope[:], true},
		{"norm", normOptions(normWideHeld), []string{"norm_wide_ff", "norm_wide_fb", "norm_wide_bf", "norm_wide_bb"}, k.normWide[:], true},
		{"rope", nil, []string{"rope_ff", "rope_fb", "rope_bf", "rope_bb"}, k.rope[:], true},
		{"gather", nil, []string{"gather_f", "gather_b"}, k.gather[:], true},
		{"timeembed", nil, []string{"timeembed_f", "timeembed_b"}, k.timeembed[:], true},
		{"noise", nil, []string{"noise_f", "noise_b"}, k.noise[:], true},
		{"quant", nil, []string{"quant_f", "quant_b", "quant_amax_f", "quant_amax_b"}, k.quant[:], true},
		{"pixels", nil, []string{"pixels"}, k.pixels[:], true},
		{"unfold", nil, []string{"unfold_16", "unfold_4", "unfold_2"}, k.unfold[:], true},
		{"linear", nil, []string{"linear", "linear_parts"}, k.linear[:], false},
		{"plan", nil, []string{"plan_means", "plan_groups", "plan_norms", "plan_scores", "plan_pick", "plan_keys", "plan_rest"}, k.plan[:], false},
		{"select", nil, []string{"select_begin", "select_mark", "select_copy"}, k.selects[:], false},
		{"join", nil, []string{"join"}, k.join[:], true},
		{"split", nil, []string{"split_order", "split_copy"}, k.split[:], false},
		{"hash", nil, []string{"hash_signs", "hash_levels"}, k.hash[:], false},
		{"buckets", nil, []string{"buckets_sort", "buckets_match"}, k.buckets[:], false},
		{"match", nil, []string{"match_begin", "match_fast", "match_any", "match_end", "match_codes"}, k.match[:], false},
		{"merge", []string{"--fmad=false"}, []string{"merge_describe", "merge_cells", "merge_around", "merge_accept", "merge_join", "merge_found"}, k.merge[:], false},
	}
}

func mapOptions(unroll1, unroll2 int) []string {
	return []string{define("UNROLL1", unroll1), define("UNROLL2", unroll2)}
}

func normOptions(held int) []string { return []string{define("HELD", held)} }

// define is the compiler option of a macro.
func define(name string, value int) string { return fmt.Sprintf("--define-macro=%s=%d", name, value) }

// target chooses what to compile for: machine code for the GPU (with Hopper's own instructions where it is one), or PTX of
// the newest older capability when the GPU is newer than the compiler. supported comes from the compiler; nothing there
// means that it does not say.
func target(major, minor int, supported []int) (arch string, ptx bool, err error) {
	cc := major*10 + minor
	if cc == 90 && (len(supported) == 0 || slices.Contains(supported, 90)) {
		return "sm_90a", false, nil
	}
	if len(supported) == 0 || slices.Contains(supported, cc) {
		return fmt.Sprintf("sm_%d", cc), false, nil
	}
	newest := 0
	for _, s := range supported {
		if s <= cc {
			newest = max(newest, s)
		}
	}
	if newest < minCapability {
		return "", false, fmt.Errorf("cuda: the run-time compiler does not serve compute capability %d.%d", major, minor)
	}
	return fmt.Sprintf("compute_%d", newest), true, nil
}

// modules compiles, caches and loads kernel files for one GPU. Safe for concurrent use.
type modules struct {
	drv      driver
	comp     compiler
	cache    cubinCache
	arch     string
	ptx      bool
	progress func(string)

	mu     sync.Mutex
	loaded map[string]uintptr // by cache key
	asked  map[string]bool    // those of loaded that something wanted
}

func newModules(drv driver, comp compiler, o Options) (*modules, error) {
	l := drv.Limits()
	arch, ptx, err := target(l.major, l.minor, comp.Architectures())
	if err != nil {
		return nil, err
	}
	m := &modules{drv: drv, comp: comp, cache: cubinCache{o.CacheDir}, arch: arch, ptx: ptx, progress: o.Progress, loaded: map[string]uintptr{}, asked: map[string]bool{}}
	if m.cache.dir == "" {
		m.cache.dir = defaultCacheDir()
	}
	if m.progress == nil {
		m.progress = func(string) {}
	}
	return m, nil
}

// source is what the compiler sees of kernels/<name>/<name>.cu: the shared types, the folder's .cuh files in the order of their
// names, the file.
func source(name string) ([]byte, error) {
	parts, err := fs.Glob(kernelSources, "kernels/"+name+"/*.cuh")
	if err != nil {
		return nil, err
	}
	var src []byte
	for _, file := range append(append([]string{"kernels/types.cuh"}, parts...), "kernels/"+name+"/"+name+".cu") {
		text, err := kernelSources.ReadFile(file)
		if err != nil {
			return nil, err
		}
		src = fmt.Appendf(src, "#line 1 \"%s\"\n%s\n", path.Base(file), text)
	}
	return src, nil
}

// early returns the kernels that may be started early.
func (k *kernels) early() map[uintptr]bool {
	all := map[uintptr]bool{}
	for _, f := range k.files() {
		for _, fn := range f.to {
			if f.early && fn != 0 {
				all[fn] = true
			}
		}
	}
	return all
}

// load returns the module of an embedded kernel file, compiled with additional options such as --define-macro=N=1.
func (m *modules) load(name string, options ...string) (uintptr, error) {
	src, err := source(name)
	if err != nil {
		return 0, fmt.Errorf("kernel file %s: %w", name, err)
	}
	return m.loadSource(name, src, options...)
}

// loadSource is load for any source text.
func (m *modules) loadSource(name string, src []byte, options ...string) (uintptr, error) {
	options = append([]string{"--gpu-architecture=" + m.arch, "--std=c++17"}, options...)
	key := cubinKey(src, options, m.comp.Version(), m.arch)
	m.mu.Lock()
	module, ok := m.loaded[key]
	m.asked[key] = true
	m.mu.Unlock()
	if ok {
		return module, nil
	}
	image, err := m.cache.get(key)
	if err == nil {
		if module, err = m.drv.Load(image); err == nil {
			return m.keep(key, module), nil
		}
	}
	why := ""
	if !errors.Is(err, fs.ErrNotExist) {
		why = fmt.Sprintf(" (cached code unusable: %v)", err)
	}
	m.say(fmt.Sprintf("compiling %s.cu for %s%s", name, m.arch, why))
	if image, err = m.comp.Compile(name+".cu", src, options, m.ptx); err != nil {
		return 0, err
	}
	if err := m.cache.put(key, image); err != nil {
		m.say(err.Error())
	}
	if module, err = m.drv.Load(image); err != nil {
		return 0, fmt.Errorf("load %s.cu: %w", name, err)
	}
	return m.keep(key, module), nil
}

// keep records a module; if another goroutine was faster, its module stays.
func (m *modules) keep(key string, module uintptr) uintptr {
	m.mu.Lock()
	defer m.mu.Unlock()
	if first, ok := m.loaded[key]; ok {
		m.drv.Unload(module)
		return first
	}
	m.loaded[key] = module
	return module
}

func (m *modules) say(line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress(line)
}

// loadAll fills k, several files at a time. A file is compiled once for each set of options.
func (m *modules) loadAll(k *kernels) error {
	files := k.files()
	errs := make([]error, len(files))
	limit := make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))
	var wg sync.WaitGroup
	for first, f := range files {
		same := func(other kernelFile) bool { return other.name == f.name && slices.Equal(other.options, f.options) }
		if slices.ContainsFunc(files[:first], same) {
			continue
		}
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			module, err := m.load(f.name, f.options...)
			for i := first; i < len(files); i++ {
				if !same(files[i]) {
					continue
				}
				if errs[i] = err; err == nil {
					errs[i] = m.functions(module, files[i])
				}
			}
		})
	}
	wg.Wait()
	m.loadUsed()
	return errors.Join(errs...)
}

// loadUsed loads the variants that the last process came to use. To load one while the GPU works waits until it has nothing to do: a tenth of
// a second before the first frames, twice.
func (m *modules) loadUsed() {
	for _, key := range m.cache.used(m.arch) {
		m.mu.Lock()
		_, ok := m.loaded[key]
		m.mu.Unlock()
		if ok {
			continue
		}
		if image, err := m.cache.get(key); err == nil {
			if module, err := m.drv.Load(image); err == nil {
				m.keep(key, module)
			}
		}
	}
}

func (m *modules) functions(module uintptr, f kernelFile) error {
	for i, name := range f.functions {
		fn, err := m.drv.Function(module, name)
		if err != nil {
			return err
		}
		f.to[i] = fn
	}
	return nil
}

// unload gives the modules back.
func (m *modules) unload() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cache.remember(m.arch, slices.Collect(maps.Keys(m.asked)))
	for _, module := range m.loaded {
		m.drv.Unload(module)
	}
	clear(m.loaded)
}
