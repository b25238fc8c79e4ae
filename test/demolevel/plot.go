package main

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// point is a value at a number of seconds.
type point struct{ X, Y float64 }

// line is one line of a chart. Lines with the same color number belong together in all charts of a
// figure.
type line struct {
	title  string
	color  int // index into the colors of the style sheet
	points []point
}

// band is a part of the time with a name.
type band struct {
	title    string
	from, to float64
}

// chart is one pair of axes.
type chart struct {
	title     string
	lines     []line
	log       bool    // the vertical axis is logarithmic
	level     float64 // a horizontal line, if above 0
	levelName string
	bands     []band
}

// figure is a column of charts with one time axis in seconds and one legend.
type figure struct {
	title  string
	charts []chart
}

// Sizes in pixels.
const (
	figureWidth = 760
	chartHeight = 200
	leftMargin  = 64
	rightMargin = 16
	headHeight  = 30 // title of the figure
	legendLine  = 18
	chartHead   = 30 // title of a chart
	chartFoot   = 30 // numbers of the time axis
)

// style has two sets of colors, because a reader's page can be light or dark. Every color is
// written out, because some programs that show SVG do not support CSS variables.
const style = `
  .paper { fill: #ffffff; }
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 14px; font-weight: 600; }
  .number { font-size: 11px; fill: #656d76; }
  .name { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; }
  .grid { stroke: #d8dee4; stroke-width: 1; }
  .level { stroke: #1f2328; stroke-width: 1; stroke-dasharray: 5 4; }
  .band { fill: #8250df; opacity: 0.14; }
  .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
  .c0 { stroke: #bc4c00; }
  .c1 { stroke: #0969da; }
  .c2 { stroke: #a40e6b; }
  .c3 { stroke: #1a7f37; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; }
    text { fill: #e6edf3; }
    .number { fill: #9198a1; }
    .name { stroke: #0d1117; }
    .grid { stroke: #30363d; }
    .level { stroke: #e6edf3; }
    .band { fill: #d2a8ff; }
    .c0 { stroke: #ffa657; }
    .c1 { stroke: #79c0ff; }
    .c2 { stroke: #ff9bce; }
    .c3 { stroke: #56d364; }
  }
`

// svg writes the figure.
func (f *figure) svg() []byte {
	var b strings.Builder
	legend := f.legend()
	top := headHeight + legendLine*((len(legend)+1)/2)
	height := top + len(f.charts)*(chartHead+chartHeight+chartFoot) + 8
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		figureWidth, height, figureWidth, height, html.EscapeString(f.title))
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", html.EscapeString(f.title), style)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d"/>`+"\n", figureWidth, height)
	text(&b, leftMargin, 20, "title", "start", f.title)
	for i, l := range legend {
		x, y := float64(leftMargin+i%2*340), float64(headHeight+legendLine*(i/2)+8)
		fmt.Fprintf(&b, `<path class="line c%d" d="M%g %g h22"/>`+"\n", l.color, x, y)
		text(&b, x+28, y+4, "", "start", l.title)
	}
	end := f.end()
	for i := range f.charts {
		f.charts[i].svg(&b, float64(top+i*(chartHead+chartHeight+chartFoot)+chartHead), end)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// legend returns one line of each color.
func (f *figure) legend() []line {
	var list []line
	seen := map[int]bool{}
	for _, c := range f.charts {
		for _, l := range c.lines {
			if !seen[l.color] {
				seen[l.color] = true
				list = append(list, l)
			}
		}
	}
	return list
}

// end returns the last moment of all lines.
func (f *figure) end() float64 {
	end := 1.0
	for _, c := range f.charts {
		for _, l := range c.lines {
			for _, p := range l.points {
				end = max(end, p.X)
			}
		}
	}
	return end
}

// svg writes the chart with its upper edge at top.
func (c *chart) svg(b *strings.Builder, top, end float64) {
	wide := float64(figureWidth - leftMargin - rightMargin)
	low, high, ticks := c.scale()
	x := func(v float64) float64 { return leftMargin + wide*v/end }
	y := func(v float64) float64 {
		if c.log {
			v = math.Log10(max(v, low))
			return top + chartHeight*(1-(v-math.Log10(low))/(math.Log10(high)-math.Log10(low)))
		}
		return top + chartHeight*(1-(v-low)/(high-low))
	}
	text(b, leftMargin, top-8, "", "start", c.title)
	for _, s := range c.bands {
		fmt.Fprintf(b, `<rect class="band" x="%.1f" y="%.1f" width="%.1f" height="%d"/>`+"\n", x(s.from), top, max(1, x(s.to)-x(s.from)-2), chartHeight)
		text(b, x((s.from+s.to)/2), top+12, "number", "middle", s.title)
	}
	for _, v := range ticks {
		fmt.Fprintf(b, `<path class="grid" d="M%d %.1f H%d"/>`+"\n", leftMargin, y(v), figureWidth-rightMargin)
		text(b, leftMargin-6, y(v)+4, "number", "end", short64(v))
	}
	for v := 0.0; v <= end; v += step(end, 8) {
		text(b, x(v), top+chartHeight+16, "number", "middle", short64(v)+" s")
	}
	for _, l := range c.lines {
		var d strings.Builder
		for i, p := range l.points {
			fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], x(p.X), y(p.Y))
		}
		fmt.Fprintf(b, `<path class="line c%d" d="%s"><title>%s</title></path>`+"\n", l.color, d.String(), html.EscapeString(l.title))
	}
	if c.level > 0 {
		fmt.Fprintf(b, `<path class="level" d="M%d %.1f H%d"/>`+"\n", leftMargin, y(c.level), figureWidth-rightMargin)
		text(b, figureWidth-rightMargin, y(c.level)-4, "number name", "end", c.levelName)
	}
}

// scale returns the limits and the marks of the vertical axis.
func (c *chart) scale() (low, high float64, ticks []float64) {
	low, high = math.Inf(1), 0.0
	for _, l := range c.lines {
		for _, p := range l.points {
			high = max(high, p.Y)
			if p.Y > 0 {
				low = min(low, p.Y)
			}
		}
	}
	if c.level > 0 {
		low, high = min(low, c.level), max(high, c.level)
	}
	if high == 0 {
		low, high = 0.1, 1
	}
	if !c.log {
		s := step(high, 5)
		high = s * math.Ceil(high/s)
		for v := 0.0; v <= high; v += s {
			ticks = append(ticks, v)
		}
		return 0, high, ticks
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	to = max(to, from+1)
	for e := from; e <= to; e++ {
		ticks = append(ticks, math.Pow(10, e))
	}
	return ticks[0], ticks[len(ticks)-1], ticks
}

// step returns a round distance of which about n fit into size.
func step(size float64, n int) float64 {
	raw := size / float64(n)
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if unit*m >= raw {
			return unit * m
		}
	}
	return unit * 10
}

// short64 writes a number without needless digits.
func short64(v float64) string {
	if v >= 10_000 {
		return strconv.FormatFloat(v/1000, 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 5, 64)
}

func text(b *strings.Builder, x, y float64, class, anchor, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(s))
}
