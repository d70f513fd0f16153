package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// Sizes in a plot, in pixels.
const (
	plotWidth  = 860
	labelWidth = 300
	valueWidth = 80
	barHeight  = 16
	barGap     = 4
)

var colours = map[role]string{ours: "#1a7f5a", setting: "#8cc5ae", limit: "#9aa5b1", peer: "#c98a3c"}

// plot writes an SVG file for each suite: one bar for each system, with the median as its
// length and a line from the least to the most. Bars of one case have one scale, which is
// logarithmic where they differ much.
func (r *report) plot(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	groups := make(map[string][][]row) // by suite, rows with one case and unit together
	for _, w := range r.Rows {
		g := groups[w.Suite]
		found := false
		for i := range g {
			if g[i][0].Case == w.Case && g[i][0].Unit == w.Unit {
				g[i], found = append(g[i], w), true
			}
		}
		if !found {
			g = append(g, []row{w})
		}
		groups[w.Suite] = g
	}
	for suite, g := range groups {
		if err := os.WriteFile(filepath.Join(dir, suite+".svg"), []byte(drawPlot(g)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func drawPlot(groups [][]row) string {
	var b strings.Builder
	y := 14
	for _, g := range groups {
		scale := scaleOf(g)
		y += 22
		fmt.Fprintf(&b, "<text x=\"8\" y=\"%d\" font-weight=\"bold\">%s</text>\n", y, html.EscapeString(g[0].Case+", "+g[0].Unit+scale.name))
		y += 8
		for _, w := range g {
			middle := y + barHeight/2
			fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", labelWidth-8, middle+4, html.EscapeString(w.System))
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", labelWidth, y, scale.length(w.Median), barHeight, colours[w.Role])
			fmt.Fprintf(&b, "<path d=\"M%.1f %dH%.1f\" stroke=\"#222\"/>\n", labelWidth+scale.length(w.Min), middle, labelWidth+scale.length(w.Max))
			if w.Want > 0 && w.Ratio > 0 {
				at := labelWidth + scale.length(w.goal())
				fmt.Fprintf(&b, "<path d=\"M%.1f %dV%d\" stroke=\"#b00020\" stroke-dasharray=\"3 2\"/>\n", at, y-2, y+barHeight+2)
			}
			fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\">%.4g</text>\n", plotWidth-valueWidth+10, middle+4, w.Median)
			y += barHeight + barGap
		}
	}
	const head = `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="8" y="14" fill="#555">green: pixferry; grey: limit; brown: peer; thin line: least to most; red: what pixferry is to reach</text>
`
	return fmt.Sprintf(head, plotWidth, y+20) + b.String() + "</svg>\n"
}

// goal is where pixferry's figure would just do: in rows of others that much of theirs.
func (w *row) goal() float64 {
	if w.Role == ours {
		return w.Median / w.Ratio * w.Want
	}
	return w.Median * w.Want
}

// barScale maps figures to lengths.
type barScale struct {
	low, high float64
	name      string
}

func scaleOf(g []row) barScale {
	s := barScale{}
	least := math.Inf(1)
	for _, w := range g {
		s.high = max(s.high, w.Max)
		if w.Want > 0 && w.Ratio > 0 {
			s.high = max(s.high, w.goal())
		}
		if w.Min > 0 {
			least = min(least, w.Min)
		}
	}
	if s.high > 20*least {
		s.low, s.name = least/2, " (logarithmic)"
	}
	return s
}

func (s *barScale) length(v float64) float64 {
	const width = plotWidth - labelWidth - valueWidth
	if s.low > 0 {
		return width * max(0, math.Log(v/s.low)/math.Log(s.high/s.low))
	}
	return width * v / max(s.high, math.SmallestNonzeroFloat64)
}
