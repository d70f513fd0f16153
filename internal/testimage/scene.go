package testimage

import "math"

// noise is a SplitMix64 generator and the source of everything in a scene.
type noise uint64

func (n *noise) next() uint64 {
	*n += 0x9e3779b97f4a7c15
	return mix(uint64(*n))
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (n *noise) between(lo, hi float64) float64 { return lo + (hi-lo)*float64(n.next()>>11)/(1<<53) }

// grain is what a sensor adds to a pixel: a bell curve of about ±8.
func (n *noise) grain() float64 {
	z := n.next()
	return (float64(z&0xffff) + float64(z>>16&0xffff) + float64(z>>32&0xffff) - 1.5*0xffff) * 12 / (1.5 * 0xffff)
}

type rgb [3]float64

func blend(a, b rgb, t float64) rgb {
	for i := range a {
		a[i] += (b[i] - a[i]) * t
	}
	return a
}

// A scene is a landscape: sky with clouds and a sun, ridges of hills, round
// and square things, and a plate with lines of writing. Heights run from 0 at
// the top to 1; widths are in the same unit.
type scene struct {
	noise      noise
	salt       uint64
	top, low   rgb
	sunX, sunY float64
	ridges     [4]ridge
	things     [12]thing
	plateX     float64
}

type ridge struct {
	base, height, freq, phase float64
	color                     rgb
}

type thing struct {
	x, y, rx, ry float64
	square       bool
	color        rgb
}

func newScene(seed uint64, w, h int) *scene {
	s, width := &scene{noise: noise(mix(seed))}, float64(w)/float64(h)
	n := &s.noise
	color := func(lo, hi float64) rgb { return rgb{n.between(lo, hi), n.between(lo, hi), n.between(lo, hi)} }
	s.salt = n.next()
	s.top, s.low = color(20, 140), color(150, 250)
	s.sunX, s.sunY = n.between(0, width), n.between(0.05, 0.4)
	for i := range s.ridges {
		far := float64(i)
		s.ridges[i] = ridge{0.4 + 0.15*far, n.between(0.03, 0.12), n.between(2, 7), n.between(0, 6), color(30, 190-35*far)}
	}
	for i := range s.things {
		s.things[i] = thing{n.between(0, width), n.between(0.35, 0.95), n.between(0.01, 0.08), n.between(0.01, 0.08), n.next()&1 == 0, color(0, 255)}
	}
	s.plateX = n.between(0, width/2)
	return s
}

func (s *scene) at(x, y float64) rgb {
	if px, py := (x-s.plateX)/0.4, (y-0.8)/0.15; px > 0 && px < 1 && py > 0 && py < 1 {
		return s.writing(px, py)
	}
	c := s.ground(x, y)
	for _, t := range s.things {
		dx, dy := (x-t.x)/t.rx, (y-t.y)/t.ry
		if t.square && max(math.Abs(dx), math.Abs(dy)) < 1 || !t.square && dx*dx+dy*dy < 1 {
			c = blend(t.color, rgb{}, 0.25*(dx+dy+1))
		}
	}
	return c
}

// ground is the nearest ridge that reaches up to y, or the sky.
func (s *scene) ground(x, y float64) rgb {
	for i := len(s.ridges) - 1; i >= 0; i-- {
		if r := s.ridges[i]; y > r.base+r.height*(math.Sin(r.freq*x+r.phase)+0.2*math.Sin(11*r.freq*x)) {
			return blend(r.color, rgb{}, 0.7*s.texture(x*40, y*60, 3)-0.2)
		}
	}
	c := blend(s.top, s.low, y)
	c = blend(c, rgb{250, 250, 250}, max(0, s.texture(x*3, y*8, 3)-0.45)*1.5)
	return blend(c, rgb{255, 250, 220}, math.Exp(-40*((x-s.sunX)*(x-s.sunX)+(y-s.sunY)*(y-s.sunY))))
}

// writing is five lines of 24 characters, each a grid of 3 × 5 dots.
func (s *scene) writing(x, y float64) rgb {
	line, char := math.Floor(y*5), math.Floor(x*24)
	dotX, dotY := int((x*24-char)*4), int((y*5-line)*7)
	glyph := mix(s.salt + uint64(line)*31 + uint64(char))
	if dotX < 3 && dotY < 5 && glyph>>(dotY*3+dotX)&1 == 1 && glyph>>60 != 0 {
		return rgb{25, 25, 35}
	}
	return rgb{235, 232, 220}
}

// texture is value noise in octaves, between 0 and 1.
func (s *scene) texture(x, y float64, octaves int) float64 {
	sum, weight := 0.0, 0.5
	for range octaves {
		x0, y0 := math.Floor(x), math.Floor(y)
		fx, fy := x-x0, y-y0
		at := func(dx, dy int64) float64 {
			return float64(mix(s.salt+uint64(int64(x0)+dx)<<32+uint64(int64(y0)+dy))>>40) / (1 << 24)
		}
		upper, lower := at(0, 0)*(1-fx)+at(1, 0)*fx, at(0, 1)*(1-fx)+at(1, 1)*fx
		sum += weight * (upper*(1-fy) + lower*fy)
		x, y, weight = 2*x, 2*y, weight/2
	}
	return sum
}
