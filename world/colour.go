package world

// rgb is a linear mix of light; 1 is white, more is cut off at the end.
type rgb struct{ r, g, b f32 }

func (c rgb) scale(s f32) rgb { return rgb{f32(c.r * s), f32(c.g * s), f32(c.b * s)} }

// mix goes the part t of the way from c to d.
func (c rgb) mix(d rgb, t f32) rgb {
	return rgb{
		c.r + f32((d.r-c.r)*t),
		c.g + f32((d.g-c.g)*t),
		c.b + f32((d.b-c.b)*t),
	}
}

var white = rgb{1, 1, 1}

var palette = [numColours]rgb{
	{0.82, 0.20, 0.16}, // red
	{0.92, 0.52, 0.14}, // orange
	{0.93, 0.83, 0.25}, // yellow
	{0.25, 0.62, 0.24}, // green
	{0.20, 0.38, 0.82}, // blue
	{0.52, 0.27, 0.72}, // purple
	{0.92, 0.52, 0.68}, // pink
	{0.90, 0.90, 0.88}, // white
	{0.50, 0.51, 0.54}, // grey
	{0.50, 0.33, 0.19}, // brown
	{0.20, 0.20, 0.23}, // black
	{0.20, 0.70, 0.70}, // teal
}

var skyHorizon = [numSkies]rgb{
	SkyBlue:     {0.74, 0.86, 0.96},
	SkySunset:   {0.98, 0.68, 0.38},
	SkyNight:    {0.16, 0.18, 0.32},
	SkyOvercast: {0.70, 0.72, 0.74},
	SkyDawn:     {0.96, 0.74, 0.78},
	SkyAlien:    {0.62, 0.86, 0.68},
}

var skyZenith = [numSkies]rgb{
	SkyBlue:     {0.22, 0.48, 0.88},
	SkySunset:   {0.45, 0.22, 0.50},
	SkyNight:    {0.02, 0.03, 0.12},
	SkyOvercast: {0.46, 0.49, 0.53},
	SkyDawn:     {0.50, 0.52, 0.84},
	SkyAlien:    {0.10, 0.38, 0.38},
}
