package kvcache

// Charted is a Cache that can say where in the frame the keys lie that it shows, for those who draw it. Reading only, between
// chunks: it speaks of the view of the last forward.
type Charted interface {
	// Chart calls f for every key of a head's view that the host knows of: its number in the view, the token of the frame that
	// it, or the newest of those that it stands for, was made from, and how many tokens it stands for.
	Chart(layer, head int, f func(key, token, stands int))
}

// Chart lists the frames in view.
func (c *frames) Chart(_, _ int, f func(key, token, stands int)) {
	for _, p := range c.work.parts {
		for key := p.Lo; key < p.Hi; key++ {
			f(key, (key-p.Lo)%c.shape.Tokens(), 1)
		}
	}
}
