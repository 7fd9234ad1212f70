package pose

import "longtake/kvcache"

var _ kvcache.Charted = (*cache)(nil)

// Chart lists the frames in view, retrieved ones too.
func (c *cache) Chart(_, _ int, f func(key, token, stands int)) {
	for _, p := range c.parts {
		for key := p.Lo; key < p.Hi; key++ {
			f(key, key-p.Lo, 1)
		}
	}
}
