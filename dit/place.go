package dit

import (
	"encoding/binary"
	"math"

	"longtake/compute"
)

// A network with Config.Waves is told where each frame is made: sines and cosines of four lengths, for every column of patches,
// are added to the tokens and, in every block, to queries and keys before rotation, so that what was seen from one place finds
// itself again (train/tw.py, place_features).

// spot is what is known of a frame's making: action, heading and place in cells, x to the east and y to the south.
type spot struct {
	action, heading int
	x, y            float64
}

// places is the memory of that; absent in networks without Config.Waves.
type places struct {
	features compute.Tensor   // F32 [frames*columns, 8*waves]
	rows     compute.Tensor   // F32 [frames*columns, dim]
	token    compute.Tensor   // I32 [tokens]: which row
	q, k     []compute.Tensor // per block F32 [tokens, dim], added to queries and keys: the shift of their norm
	host     []byte
}

func (m *Model) newPlaces(a compute.Arena, frames int) *places {
	if len(m.Waves) == 0 {
		return nil
	}
	n := frames * m.Columns
	p := &places{features: a.Tensor(compute.F32, n, 8*len(m.Waves)), rows: a.Tensor(compute.F32, n, m.Dim), token: a.Tensor(compute.I32, frames*m.Tokens())}
	for range m.Layers {
		p.q = append(p.q, a.Tensor(compute.F32, frames*m.Tokens(), m.Dim))
		p.k = append(p.k, a.Tensor(compute.F32, frames*m.Tokens(), m.Dim))
	}
	return p
}

// Place tells the network anew where the frames of the chunk in work are made, in networks with Config.Waves: between Predict
// and the clean pass, when a step has failed.
func (w *Work) Place(dq compute.Queue, at [][2]float64) {
	if w.places == nil {
		return
	}
	for i := range w.controls[1] {
		p := at[min(i, len(at)-1)]
		w.controls[1][i].x, w.controls[1][i].y = p[0], p[1]
	}
	w.control(dq)
}

// place computes what is added to tokens, queries and keys for the frames of a forward.
func (w *Work) place(dq compute.Queue) {
	p, m := w.places, w.m
	if p == nil {
		return
	}
	p.host = p.host[:0]
	for f := range w.frames {
		s := w.spotOf(f)
		for column := range m.Columns {
			p.host = m.appendFeatures(p.host, s, column)
		}
	}
	dq.Upload(p.features, p.host)
	w.index(dq, p.token, func(i int) int { return i/m.Tokens()*m.Columns + i%m.Columns })
	dq.Linear(p.rows, p.features, m.steered.placeIn, compute.Tensor{}, compute.None)
	dq.Gather(w.added, p.rows, p.token, true)
	for i := range m.blocks {
		b := &m.blocks[i]
		dq.Linear(p.rows, p.features, b.placeQ, compute.Tensor{}, compute.None)
		dq.Gather(p.q[i], p.rows, p.token, false)
		dq.Linear(p.rows, p.features, b.placeK, compute.Tensor{}, compute.None)
		dq.Gather(p.k[i], p.rows, p.token, false)
	}
}

// appendFeatures appends the sines, then the cosines, of x, y, the offset of the column's ray from the origin (rays along one line
// agree) and the way of the camera along it, each over all waves.
func (m *Model) appendFeatures(b []byte, s spot, column int) []byte {
	half := float64(m.Columns) / 2
	azimuth := 2*math.Pi*float64(s.heading)/float64(m.Headings) + math.Atan((float64(column)-half+0.5)/half*m.ViewTan)
	dx, dy := math.Sin(azimuth), -math.Cos(azimuth)
	lengths := [4]float64{s.x, s.y, s.x*dy - s.y*dx, s.x*dx + s.y*dy}
	for _, f := range [2]func(float64) float64{math.Sin, math.Cos} {
		for _, u := range lengths {
			for _, wave := range m.Waves {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(f(2*math.Pi*u/wave))))
			}
		}
	}
	return b
}
