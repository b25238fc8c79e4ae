package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/test/build"
)

// TestSmoke makes small runs with one server program.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("runs of real processes; not under -short")
	}
	if _, err := pgtest.Find(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED:", err)
	}
	binary, err := build.Server(t.Context(), t.TempDir(), "surgetank", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("whole", func(t *testing.T) { whole(t, binary) })
	t.Run("careless", func(t *testing.T) { careless(t, binary) })
}

// whole: every phase ends, and every row is in its table once. Other activity on the machine must
// not fail the test, so it judges no time and no latency.
func whole(t *testing.T, binary string) {
	r := runShort(t, short(), binary)
	if len(r.drains) != 6 {
		t.Errorf("%d drains, not 6", len(r.drains))
	}
	for _, d := range r.drains {
		if !d.whole() || d.ended <= d.began || len(d.backlog) == 0 || d.adaptive && d.spent > 0 {
			t.Errorf("%s: %d of %d rows, %d parked, %d attempts spent, from %v to %v", d.title, d.rows, d.messages, d.parked, d.spent, d.began, d.ended)
		}
		if o := d.disturbed; d.outage && (o == nil || o.killed <= o.slowed || o.back <= o.killed) {
			t.Errorf("%s: the disturbance is not complete: %+v", d.title, o)
		}
	}
	dir := t.TempDir()
	if err := r.record(dir); err != nil {
		t.Fatal(err)
	}
	plots, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(plots) != 3 {
		t.Fatalf("the plots are %v, %v", plots, err)
	}
	for _, p := range plots {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, text)
	}
}

// careless: workers that treat an outage as a failure of the message use up attempts. The run must
// report these attempts.
func careless(t *testing.T, binary string) {
	o := short()
	o.careless, o.only = true, "outage_rows"
	r := runShort(t, o, binary)
	if len(r.drains) != 1 || r.drains[0].spent == 0 || !strings.Contains(strings.Join(r.broken(), "\n"), "lost an attempt") {
		t.Errorf("the run found no spent attempts: %v", r.broken())
	}
}

// runShort runs the demonstration.
func runShort(t *testing.T, o options, binary string) *result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	o.say, o.binary = t.Logf, binary
	r, err := run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.markdown())
	return r
}

// wellFormed fails unless a text is one well-formed XML document with an svg element.
func wellFormed(t *testing.T, text []byte) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(string(text)))
	root := ""
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if e, ok := token.(xml.StartElement); ok && root == "" {
			root = e.Name.Local
		}
	}
	if root != "svg" {
		t.Fatalf("the root element is %q", root)
	}
}

// TestVerdict: the run's verdict must fail for each kind of fault.
func TestVerdict(t *testing.T) {
	good := func() *result {
		r := &result{options: options{after: 2 * time.Second}, drains: []*drain{{title: "d", messages: 5, rows: 5, adaptive: true,
			ended: 9 * time.Second, disturbed: &disturbance{killed: 3 * time.Second, back: 5 * time.Second, leftAtKill: 3}}}}
		for at := time.Duration(0); at < 12*time.Second; at += 100 * time.Millisecond {
			r.samples = append(r.samples, sample{at, time.Millisecond, at >= 3*time.Second && at < 5*time.Second})
		}
		return r
	}
	if broken := good().broken(); len(broken) > 0 {
		t.Error("a good run is refused:", broken)
	}
	for name, spoil := range map[string]func(*result){
		"lost":            func(r *result) { r.drains[0].rows = 4 },
		"parked":          func(r *result) { r.drains[0].parked = 1 },
		"attempt":         func(r *result) { r.drains[0].spent = 1 },
		"nothing to kill": func(r *result) { r.drains[0].disturbed.leftAtKill = 0 },
		"failed after the return": func(r *result) {
			r.samples = append(r.samples, sample{at: 6 * time.Second, failed: true})
		},
		"failed after the drain": func(r *result) {
			r.samples = append(r.samples, sample{at: 10 * time.Second, failed: true})
		},
		"slow after the return": func(r *result) {
			for i := range r.samples {
				if at := r.samples[i].at; at >= 7*time.Second && at < 8*time.Second {
					r.samples[i].took = 2 * time.Second
				}
			}
		},
	} {
		r := good()
		if spoil(r); len(r.broken()) == 0 {
			t.Errorf("%s: a bad run passes", name)
		}
	}
}

// TestLatency: failed transactions are counted, and they have no latency.
func TestLatency(t *testing.T) {
	samples := []sample{{at: 0, took: time.Hour}, {at: 20, took: time.Hour}, {at: 11, failed: true}}
	for i := range 99 {
		samples = append(samples, sample{at: 10, took: time.Duration(i + 1)})
	}
	got := latencyOf(samples, 10, 20)
	if want := (latency{Count: 100, Failed: 1, P50: 50, P99: 99, Max: 99}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if got := latencyOf(samples, 30, 40); got != (latency{}) || !got.available() {
		t.Errorf("%+v for no transaction", got)
	}
}

// TestPlot: a figure is well-formed XML for empty, small and unusual data, and contains the name of
// each line and band.
func TestPlot(t *testing.T) {
	for name, f := range map[string]figure{
		"empty": {charts: []chart{{}, {log: true}}},
		"one":   {title: "a < b & \"c\"", charts: []chart{{log: true, level: 5, levelName: "normal", lines: []line{{title: "x<y", points: []point{{0.5, 3}}}}}}},
		"zeros": {charts: []chart{{lines: []line{{title: "zero", points: []point{{0, 0}, {10, 0}}}}}, {log: true, lines: []line{{points: []point{{0, 0}}}}}}},
		"bands": {charts: []chart{{bands: []band{{"down", 1, 2}}, lines: []line{{title: "l", points: []point{{0, 1}, {500, 1e6}}}}}}},
	} {
		text := f.svg()
		wellFormed(t, text)
		for _, bad := range []string{"NaN", "Inf"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s: the figure has %s:\n%s", name, bad, text)
			}
		}
	}
	f := figure{title: "title", charts: []chart{{title: "upper", level: 2, levelName: "normal", bands: []band{{"down", 1, 2}},
		lines: []line{{"first", 0, []point{{0, 1}}}, {"second", 1, []point{{1, 4}}}}}, {title: "lower"}}}
	for _, want := range []string{"title", "upper", "lower", "normal", "down", "first", "second"} {
		if !strings.Contains(string(f.svg()), want) {
			t.Errorf("the figure does not name %q", want)
		}
	}
}
