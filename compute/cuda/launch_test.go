package cuda

import (
	"slices"
	"strings"
	"testing"

	"longtake/compute"
)

func TestElementwiseViewsAreMergedIntoTheLongestRows(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	a, _ := d.NewArena(0)
	big := a.Tensor(compute.BF16, 6, 10, 4, 32)
	same := a.Tensor(compute.F32, 6, 10, 4, 32)
	dense := a.Tensor(compute.F32, 6, 10, 4, 16)
	odd := a.Tensor(compute.F32, 5, 7)
	gate := a.Tensor(compute.F32, 2, 32)
	rows := a.Tensor(compute.F32, 8, 32)
	for _, c := range []struct {
		name   string
		run    func()
		kernel string
		want   mapArgs
	}{
		{"dense operands are one row", func() { q.Copy(same, big) }, "map_fb", mapArgs{chunks: 960, rowChunks: newDivisor(960), n1: newDivisor(1), n2: newDivisor(1), vec: 1}},
		{"odd lengths go one by one", func() { q.Clamp(odd, odd, 0, 1) }, "map_ff", mapArgs{chunks: 35, rowChunks: newDivisor(35), n1: newDivisor(1), n2: newDivisor(1), op: opClamp, b: 1}},
		{"half a row leaves rows", func() { q.Copy(dense, big.Slice(3, 0, 16)) }, "map_fb",
			mapArgs{chunks: 480, rowChunks: newDivisor(2), n1: newDivisor(1), n2: newDivisor(1), vec: 1, dstStride: [3]int64{16}, xStride: [3]int64{32}}},
		{"an offset of one element breaks 16-byte access", func() { q.Copy(dense, big.Slice(3, 1, 17)) }, "map_fb",
			mapArgs{chunks: 3840, rowChunks: newDivisor(16), n1: newDivisor(1), n2: newDivisor(1), dstStride: [3]int64{16}, xStride: [3]int64{32}}},
		{"a cut in the middle leaves two dimensions", func() { q.Copy(same.Slice(1, 0, 3), big.Slice(1, 2, 5)) }, "map_fb",
			mapArgs{chunks: 288, rowChunks: newDivisor(48), n1: newDivisor(1), n2: newDivisor(1), vec: 1, dstStride: [3]int64{1280}, xStride: [3]int64{1280}}},
		{"cuts in two places leave three", func() { q.Copy(same.Slice(1, 0, 3).Slice(3, 0, 8), big.Slice(1, 2, 5).Slice(3, 8, 16)) }, "map_fb",
			mapArgs{chunks: 72, rowChunks: newDivisor(1), n1: newDivisor(6), n2: newDivisor(12), vec: 1, dstStride: [3]int64{0, 1280, 32}, xStride: [3]int64{0, 1280, 32}}},
		{"gated rows stay rows", func() { q.AddGated(rows, rows, rows, gate) }, "map_fff",
			mapArgs{chunks: 32, rowChunks: newDivisor(4), n1: newDivisor(1), n2: newDivisor(1), op: opAddGated, vec: 1, rowsPerGroup: newDivisor(4), paramStride: 32,
				dstStride: [3]int64{32}, xStride: [3]int64{32}, yStride: [3]int64{32}}},
	} {
		c.run()
		if err := q.Err(); err != nil {
			t.Fatal(err)
		}
		got := q.elementArgs
		got.dst, got.x, got.y, got.param = 0, 0, 0, 0
		if c.want.rowsPerGroup.d == 0 {
			c.want.rowsPerGroup = newDivisor(1)
		}
		if got != c.want || f.names[f.last.fn] != c.kernel {
			t.Errorf("%s: %s %+v, want %s %+v", c.name, f.names[f.last.fn], got, c.kernel, c.want)
		}
		most := uint32(256 * mapUnroll1)
		if len(c.kernel) == len("map_fff") {
			most = 256 * mapUnroll2
		}
		if blocks := (c.want.chunks + most - 1) / most; f.last.grid != [3]uint32{blocks, 1, 1} || f.last.block != [3]uint32{256, 1, 1} {
			t.Errorf("%s: grid %v of %v", c.name, f.last.grid, f.last.block)
		}
	}
}

func TestDivisorsDivide(t *testing.T) {
	over := func(n uint32, by divisor) uint32 {
		if by.d == 1 {
			return n
		}
		return uint32(uint64(n)*uint64(by.m)>>32) >> by.shift
	}
	for _, d := range []int{0, 1, 2, 3, 5, 7, 16, 192, 1560, 4680, 65535, 1 << 20, 1<<30 + 1, 1<<31 - 1} {
		by, true := newDivisor(d), uint32(max(d, 1))
		for _, n := range []uint32{0, 1, 2, 191, 192, 193, true - 1, true, true + 1, 1<<31 - 2, 1<<31 - 1, (1<<31 - 1) / true * true} {
			if n < 1<<31 && over(n, by) != n/true {
				t.Errorf("%d/%d = %d, want %d", n, d, over(n, by), n/true)
			}
		}
	}
}

func TestLaunchesFitTheHardware(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	a, _ := d.NewArena(0)
	pos := a.Tensor(compute.I32, 70, 3)
	table := a.Tensor(compute.F32, 9, 64, 2)
	index := a.Tensor(compute.I32, 70)
	check := func(name, kernel string) {
		t.Helper()
		if err := q.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b := f.last.block
		if n := b[0] * b[1] * b[2]; n == 0 || n > 1024 || b[2] > 64 || f.last.grid[1] > 65535 {
			t.Errorf("%s: grid %v of %v threads", name, f.last.grid, b)
		}
		if got := f.names[f.last.fn]; got != kernel {
			t.Errorf("%s: kernel %s, want %s", name, got, kernel)
		}
	}
	for _, c := range []struct {
		width  int
		kernel string
		blocks uint32
	}{{8, "norm_bf", 18}, {1536, "norm_bf", 70}, {4096, "norm_bf", 70}, {4104, "norm_wide_bf", 70}, {32768, "norm_wide_bf", 70}, {513, "norm_wide_bf", 70}, {255, "norm_bf", 70}} {
		x, y := a.Tensor(compute.F32, 70, c.width), a.Tensor(compute.BF16, 70, c.width)
		q.Norm(y, x, compute.Norm{})
		check("norm", c.kernel)
		if f.last.grid[0] != c.blocks {
			t.Errorf("norm %d wide: %v blocks, want %d", c.width, f.last.grid, c.blocks)
		}
	}
	for _, heads := range []int{1, 12, 40, 300} {
		x := a.Tensor(compute.BF16, 70, heads*128).Heads(heads)
		q.Rope(x, x, pos, compute.Rope{Time: table})
		check("rope", "rope_bb")
	}
	q.Rope(a.Tensor(compute.F32, 1, 70, 2), a.Tensor(compute.BF16, 1, 70, 2), pos, compute.Rope{Column: a.Tensor(compute.F32, 4, 1, 2)})
	check("narrow rope", "rope_fb")
	q.Gather(a.Tensor(compute.BF16, 70, 10000), a.Tensor(compute.F32, 5, 10000), index, false)
	check("gather", "gather_b")
	q.TimeEmbed(a.Tensor(compute.F32, 3, 256), a.Tensor(compute.F32, 3), 10000)
	check("time embed", "timeembed_f")
	q.Noise(a.Tensor(compute.F32, 2049), compute.NoiseKey{})
	if check("noise", "noise_f"); f.last.grid[0] != 2 {
		t.Errorf("noise: grid %v", f.last.grid)
	}
	wide := a.Tensor(compute.F32, 2, 40000)
	if q.Norm(wide, wide, compute.Norm{}); q.Err() == nil {
		t.Error("a row of 40000 was accepted")
	}
}

func TestLinearFusesWhatItCanAndConvertsTheRest(t *testing.T) {
	const (
		convert = "map"
		lt      = "cublasLt"
	)
	for _, c := range []struct {
		name        string
		x, w, dst   compute.DType
		bias        bool
		act         compute.Activation
		refuse      func(product) bool
		want        string
		last        product
		lastIgnored bool
	}{
		{name: "bf16 all through", x: compute.BF16, w: compute.BF16, dst: compute.BF16, want: lt, last: product{half: true, dstHalf: true}},
		{name: "bias is rounded for a bf16 result", x: compute.BF16, w: compute.BF16, dst: compute.BF16, bias: true, act: compute.GELU, want: convert + " " + lt, last: product{half: true, dstHalf: true, bias: true, act: uint8(compute.GELU)}},
		{name: "bias stays for an f32 result", x: compute.BF16, w: compute.BF16, dst: compute.F32, bias: true, want: lt, last: product{half: true, bias: true}},
		{name: "f32 input is rounded", x: compute.F32, w: compute.BF16, dst: compute.F32, want: convert + " " + lt, last: product{half: true}},
		{name: "f32 weights multiply in f32", x: compute.F32, w: compute.F32, dst: compute.F32, bias: true, act: compute.ReLU, want: lt, last: product{bias: true, act: uint8(compute.ReLU)}},
		{name: "f32 weights, bf16 around", x: compute.BF16, w: compute.F32, dst: compute.BF16, want: convert + " " + lt + " " + convert, last: product{}},
		{name: "silu follows", x: compute.BF16, w: compute.BF16, dst: compute.F32, bias: true, act: compute.SiLU, want: lt + " " + convert, last: product{half: true, bias: true}},
		{name: "no fused algorithm", x: compute.BF16, w: compute.BF16, dst: compute.F32, bias: true, act: compute.GELU, refuse: func(p product) bool { return p.bias }, want: lt + " " + convert, last: product{half: true}},
		{name: "no algorithm", x: compute.BF16, w: compute.BF16, dst: compute.F32, bias: true, act: compute.GELU, refuse: func(product) bool { return true }, want: "linear", last: product{half: true}},
	} {
		d, f := fakeDevice(t)
		f.refuse = c.refuse
		q, _ := d.NewQueue()
		a, _ := d.NewArena(0)
		w := a.Matrix(compute.Host{DType: c.w, Shape: []int{48, 32}, Data: make([]byte, 48*32*c.w.Size())})
		dst, x := a.Tensor(c.dst, 10, 48), a.Tensor(c.x, 10, 32)
		var bias compute.Tensor
		if c.bias {
			bias = a.Tensor(compute.F32, 48)
		}
		for range 2 { // the second time everything is known
			f.launches = nil
			q.Linear(dst, x, w, bias, c.act)
		}
		for i, l := range f.launches {
			f.launches[i] = strings.SplitN(l, "_", 2)[0]
		}
		if got := strings.Join(f.launches, " "); q.Err() != nil || got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.name, got, q.Err(), c.want)
		}
		p := f.products[len(f.products)-1]
		if p.rows != 10 || p.in != 32 || p.out != 48 || p.half != c.last.half || p.dstHalf != c.last.dstHalf || p.bias != c.last.bias || p.act != c.last.act {
			t.Errorf("%s: asked for %+v", c.name, p)
		}
		if len(f.products) > 2 || (c.refuse == nil && len(f.products) != 1) {
			t.Errorf("%s: %d plans", c.name, len(f.products))
		}
	}
}

func TestPlansKnowStridesAndAlignment(t *testing.T) {
	d, f := fakeDevice(t)
	q, _ := d.NewQueue()
	a, _ := d.NewArena(0)
	w := a.Matrix(compute.Host{DType: compute.BF16, Shape: []int{16, 32}, Data: make([]byte, 1024)})
	wide := a.Tensor(compute.BF16, 4, 128)
	q.Linear(wide.Slice(1, 4, 20), wide.Slice(1, 64, 96), w, compute.Tensor{}, compute.None)
	p := f.products[0]
	if p.xStride != 128 || p.dstStride != 128 || p.xAlign != 128 || p.dstAlign != 8 || p.wAlign != 256 {
		t.Errorf("plan %+v", p)
	}
}

func TestWorkSpaceGrowsOnceAndOldOnesLast(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	before := f.taken
	small := q.scratch(scratchInput, compute.BF16, 10, 100)
	if again := q.scratch(scratchInput, compute.BF16, 5, 100); again.Buffer != small.Buffer {
		t.Error("work space is not reused")
	}
	large := q.scratch(scratchInput, compute.F32, 1000, 1000)
	if large.Buffer == small.Buffer || address(small) == 0 || !slices.Contains(q.outgrown, small.Buffer.(*block)) {
		t.Error("outgrown work space is lost, but a graph may hold it")
	}
	if _, err := q.Capture(func() { q.scratch(scratchInput, compute.F32, 2000, 1000) }); err == nil || !strings.Contains(err.Error(), "run the same calls once before") {
		t.Errorf("growth while recording: %v", err)
	}
	q.Close()
	if f.taken != before-workspaceBytes-arenaAlign {
		t.Errorf("%d bytes left", f.taken-before+workspaceBytes+arenaAlign)
	}
}

// fakeAttendAny makes the kernels of a head dimension known without compiling them.
func fakeAttendAny(d *Device, f *fakeGPU, headDim int) {
	fns := [2]uintptr{f.new(), f.new()}
	f.names[fns[0]], f.names[fns[1]] = "attendany", "attendany_join"
	d.attends[attendAnyVariant{headDim: headDim}] = fns
}

// TestFloat32AttentionOfFewQueriesIsCutIntoPiecesOfItsKeys: without lists, and where queries alone leave multiprocessors without work.
func TestFloat32AttentionOfFewQueriesIsCutIntoPiecesOfItsKeys(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	fakeAttendAny(d, f, 64)
	a, _ := d.NewArena(0)
	query, dst, keys := a.Tensor(compute.F32, 64, 256).Heads(4), a.Tensor(compute.F32, 64, 256).Heads(4), a.Tensor(compute.F32, 4, 1600, 64)
	f.launches = nil
	q.Attend(dst, query, keys, keys, compute.Attention{Scale: 1})
	if g := q.attendAnyArgs; q.Err() != nil || strings.Join(f.launches, " ") != "attendany attendany_join" || g.pieceKeys != 64 || q.attendJoinArgs.pieces != 25 {
		t.Errorf("%v, %v, %+v", q.Err(), f.launches, g)
	}
	for _, c := range [][5]int{{4, 1600, 132, 25, 64}, {4, 9360, 132, 30, 320}, {100, 9360, 132, 1, 0}, {1, 64, 132, 1, 0}, {66, 130, 132, 2, 128}, {1, 0, 132, 1, 0}} {
		if pieces, keys := attendPieces(c[0], c[1], c[2]); pieces != c[3] || int(keys) != c[4] {
			t.Errorf("%d blocks, %d keys, %d multiprocessors: %d pieces of %d keys, want %d of %d", c[0], c[1], c[2], pieces, keys, c[3], c[4])
		}
	}
}

func TestAttentionVariantsArePacked(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	fakeAttendAny(d, f, 32)
	a, _ := d.NewArena(0)
	query, keys := a.Tensor(compute.F32, 130, 96).Heads(3), a.Tensor(compute.BF16, 3, 200, 32)
	dst := a.Tensor(compute.BF16, 3, 130, 32)
	q.Attend(dst, query, keys, keys, compute.Attention{Scale: 0.5, LogCount: a.Tensor(compute.F32, 3, 256).Slice(1, 0, 200),
		Lengths: a.Tensor(compute.I32, 3), LogSumExp: a.Tensor(compute.F32, 3, 130),
		Tiles: compute.Tiles{QueryTile: 100, KeyTile: 40, Keys: a.Tensor(compute.I32, 17), Ends: a.Tensor(compute.I32, 6)}})
	g := q.attendAnyArgs
	if q.Err() != nil || f.last.grid != [3]uint32{4, 3, 1} || g.queryRow != 96 || g.queryHead != 32 || g.keyHead != 6400 || g.logHead != 256 ||
		g.queryTiles != 2 || g.blocksPerTile != 2 || g.entries != 17 || g.dstHalf != 1 || g.queryHalf != 0 || g.cacheHalf != 1 || g.scale != 0.5 || g.vec != 1 {
		t.Errorf("%v: grid %v, %+v", q.Err(), f.last.grid, g)
	}
	q.Attend(dst, query, keys.Slice(1, 0, 0), keys.Slice(1, 0, 0), compute.Attention{})
	if g := q.attendAnyArgs; q.Err() != nil || g.keyCount != 0 || g.tileEnds != 0 || f.last.grid != [3]uint32{3, 3, 1} {
		t.Errorf("no keys: %v, grid %v, %+v", q.Err(), f.last.grid, g)
	}
}

func TestMatrixAttentionIsChosenAndCut(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	a, _ := d.NewArena(0)
	query, dst := a.Tensor(compute.BF16, 4680, 1536).Heads(12), a.Tensor(compute.BF16, 4680, 1536).Heads(12)
	keys := a.Tensor(compute.BF16, 12, 9000, 128).Slice(1, 0, 8000)
	dense := compute.Attention{Scale: 0.1}
	ragged := compute.Attention{Scale: 0.1, LogCount: a.Tensor(compute.F32, 12, 8000), Lengths: a.Tensor(compute.I32, 12)}
	lists := compute.Attention{Scale: 0.1, Tiles: compute.Tiles{QueryTile: 128, KeyTile: 64, Keys: a.Tensor(compute.I32, 444*30), Ends: a.Tensor(compute.I32, 444)}}
	for _, c := range []struct {
		name      string
		a         compute.Attention
		variant   attendVariant
		keyRows   int
		dynamic   bool
		wantPiece int32
	}{
		{"dense", dense, attendVariant{headDim: 128, blockKeys: 160}, 160, false, 132},
		{"counts and lengths", ragged, attendVariant{headDim: 128, blockKeys: 128, bias: true, ragged: true}, 128, true, 132},
		{"lists", lists, attendVariant{headDim: 128, blockKeys: 128, listTile: 64}, 64, true, 132},
	} {
		f.maps, f.launches = nil, nil
		q.Attend(dst, query, keys, keys, c.a)
		g := q.attendArgs
		if _, ok := d.variants[c.variant]; q.Err() != nil || !ok {
			t.Fatalf("%s: %v, variants %v", c.name, q.Err(), d.variants)
		}
		if strings.Join(f.launches, " ") != "attend attend_merge" || g.whole != 396 || g.pieces != c.wantPiece || (g.counter != 0) != c.dynamic {
			t.Errorf("%s: %v, %+v", c.name, f.launches, g)
		}
		want := tensorMap{address: address(keys), headDim: 128, tokens: 8000, heads: 12, tokenBytes: 256, headBytes: 9000 * 256, rows: c.keyRows}
		if len(f.maps) != 3 || f.maps[1] != want || f.maps[2] != want || f.maps[0].rows != 128 || f.maps[0].tokenBytes != 3072 || f.maps[0].headBytes != 256 {
			t.Errorf("%s: maps %+v", c.name, f.maps)
		}
	}
	// A prompt's keys take the portable kernel, a block a tile.
	few := a.Tensor(compute.BF16, 12, 23, 128)
	f.maps, f.launches = nil, nil
	q.Attend(dst, query, few, few, compute.Attention{Scale: 0.1, LogCount: a.Tensor(compute.F32, 12, 23)})
	if m, ok := d.variants[attendVariant{headDim: 128, few: 32, bias: true}]; q.Err() != nil || !ok || m.shared != 48<<10 ||
		strings.Join(f.launches, " ") != "attend" || len(f.maps) != 0 || q.attendArgs.whole != 444 || q.attendArgs.pieces != 1 {
		t.Errorf("few keys: %v, %v, %+v, variants %v", q.Err(), f.launches, q.attendArgs, d.variants)
	}
	for name, run := range map[string]func(){
		"f32 query":      func() { q.Attend(dst, a.Tensor(compute.F32, 12, 4680, 128), keys, keys, dense) },
		"negative scale": func() { q.Attend(dst, query, keys, keys, compute.Attention{Scale: -1}) },
		"odd rows": func() {
			q.Attend(dst, a.Tensor(compute.BF16, 4680, 1537).Slice(1, 1, 1537).Heads(12), keys, keys, dense)
		},
		"other tiles": func() {
			q.Attend(dst, query, keys, keys, compute.Attention{Scale: 1, Tiles: compute.Tiles{QueryTile: 64, KeyTile: 64, Keys: a.Tensor(compute.I32, 9), Ends: a.Tensor(compute.I32, 888)}})
		},
	} {
		fakeAttendAny(d, f, 128)
		f.launches = nil
		if run(); q.Err() != nil || strings.Join(f.launches, " ") != "attendany" {
			t.Errorf("%s: %v, %v", name, q.Err(), f.launches)
		}
	}
	for _, c := range [][5]int{{444, 205, 132, 396, 132}, {132, 205, 132, 132, 1}, {10, 1, 132, 10, 1}, {1, 1000, 132, 0, 16}, {444, 4, 132, 444, 1}, {300, 61, 132, 264, 132}} {
		if whole, pieces := attendPlan(c[0], c[1], c[2]); whole != c[3] || pieces != c[4] {
			t.Errorf("plan %v gave %d, %d", c[:3], whole, pieces)
		}
	}
}
