package cuda

import (
	"cmp"
	"fmt"
	"slices"

	"longtake/compute"
)

// opKey tells launches apart in a profile.
type opKey struct {
	name   string
	target uint64 // function, or number of the product's plan
	grid   [3]uint32
}

// profile has an event before each launch, and one behind the last.
type profile struct {
	events []uintptr
	keys   []opKey
}

var _ compute.Profiler = (*queue)(nil)

// Profile times launches by events between them, see compute.Profiler.
func (q *queue) Profile(on bool) []compute.OpTime {
	q.flush()
	if on {
		q.profile = &profile{}
		return nil
	}
	p := q.profile
	q.profile = nil
	if p == nil || len(p.events) == 0 {
		return nil
	}
	q.profiled(p, opKey{})
	defer func() {
		for _, e := range p.events {
			q.drv.FreeEvent(e)
		}
	}()
	if q.Wait() != nil {
		return nil
	}
	sums := map[opKey]*compute.OpTime{}
	for i, k := range p.keys[:len(p.events)-1] {
		ms, err := q.drv.Elapsed(p.events[i], p.events[i+1])
		if err != nil {
			q.fail("profile", err)
			return nil
		}
		if sums[k] == nil {
			sums[k] = &compute.OpTime{Name: k.name}
			if k.grid != [3]uint32{} {
				sums[k].Name = fmt.Sprintf("%s, %d x %d x %d blocks", k.name, k.grid[0], k.grid[1], k.grid[2])
			}
		}
		sums[k].Count++
		sums[k].Seconds += float64(ms) / 1e3
	}
	var out []compute.OpTime
	for _, t := range sums {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b compute.OpTime) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// profiled puts an event before what comes next.
func (q *queue) profiled(p *profile, k opKey) {
	e, err := q.drv.NewEvent(true)
	if err == nil {
		p.events, p.keys = append(p.events, e), append(p.keys, k)
		err = q.drv.Record(e, q.stream)
	}
	q.fail("profile", err)
}

// text names a plan in a profile.
func (p *productPlan) text() string {
	kind := "f32"
	switch {
	case p.fp8 != NoFP8:
		kind = p.fp8.String()
	case p.half:
		kind = "bf16"
	}
	return fmt.Sprintf("linear %d x %d x %d %s", p.rows, p.in, p.product.out, kind)
}
