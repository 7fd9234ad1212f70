package tempcache

import "longtake/kvcache"

var _ kvcache.Charted = (*cache)(nil)

// Chart lists the dense frames in view and the entries. Where the device merges, the host does not know the entries.
func (c *cache) Chart(layer, head int, f func(key, token, stands int)) {
	l, n := &c.layers[layer], c.shape.Tokens()
	first := c.dense()/n - len(c.parts) // dense place of the view's first key
	for i := range c.parts {
		if l.hides[first+i] {
			continue
		}
		for token := range n {
			f(i*n+token, token, 1)
		}
	}
	if c.remote.on {
		return
	}
	g := l.group(head)
	for slot := range g.n {
		f(len(c.parts)*n+slot, int(g.cell[slot]), int(g.members[slot]))
	}
}
