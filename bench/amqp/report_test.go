package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFigures(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.0123: "0.0123", 0.5: "0.500", 4.567: "4.57", 45.67: "45.7", 456.7: "457", 999.9: "1000", 1234: "1,234", 2000000: "2,000,000"} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestResultsRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if all, err := readResults(path); err != nil || all != nil {
		t.Fatalf("no file: %v, %v", all, err)
	}
	want := []result{{Workload: endToEnd, Target: classic, Rate: 12.5}, {Workload: backlog2m, Target: quorum, More: map[string]float64{moreLost: 1}}}
	for _, r := range want {
		if err := appendResult(path, r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// runs returns one run for each rate, of one workload against one target.
func runs(invocation, workload, target string, rates ...float64) (all []result) {
	for i, v := range rates {
		all = append(all, result{Invocation: invocation, Time: invocation, Workload: workload, Target: target, Run: i + 1, Rate: v, ServerCPU: 1})
	}
	return all
}

func TestNewestInvocationCounts(t *testing.T) {
	all := summarize(append(runs("2026-01-02", publish8, surgetank, 7, 1, 3), runs("2026-01-01", publish8, surgetank, 100, 200)...))
	if v, ok := all.figure(publish8, surgetank, rateOf); !ok || v != 3 {
		t.Errorf("median %v, %v; want 3, of the newer invocation", v, ok)
	}
	if v := (summary{runs("x", publish8, surgetank, 4, 2)}).median(rateOf); v != 3 {
		t.Errorf("median of 2 and 4 is %v", v)
	}
	if _, ok := all.figure(publish8, classic, rateOf); ok {
		t.Error("a target without runs has a figure")
	}
}

// verdicts returns the report's lines about one workload's rate goals.
func verdicts(all summaries) string {
	_, goals, _ := strings.Cut(report(all, "a machine"), "## Surgetank against its goals")
	var kept []string
	for line := range strings.Lines(goals) {
		if strings.Contains(line, "messages/s, against rabbitmq") {
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	return strings.Join(kept, "\n")
}

func TestGoals(t *testing.T) {
	measured := append(runs("a", publish8, classic, 100), runs("a", publish8, quorum, 200)...)
	got := verdicts(summarize(append(runs("a", publish8, surgetank, 400), measured...)))
	want := "| publish-1k-8 | messages/s, against rabbitmq-classic | 4.00× | ≥ 4.00× | met |\n" +
		"| publish-1k-8 | messages/s, against rabbitmq-quorum | 2.00× | ≥ 2.50× | missed |"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := verdicts(summarize(append(runs("b", publish8, surgetank, 400), measured...))); strings.Count(got, "measured in different runs") != 2 {
		t.Errorf("a ratio across invocations is not marked:\n%s", got)
	}
	if got := verdicts(summarize(measured)); got != "" {
		t.Errorf("goals without Surgetank's own figures:\n%s", got)
	}
}

func TestDisturbedRowsAreMarked(t *testing.T) {
	quiet, loud := runs("a", sync1, classic, 1), runs("a", sync1, quorum, 1)
	loud[0].OtherCores = 0.5
	text := report(summarize(append(quiet, loud...)), "a machine")
	if !strings.Contains(text, "| rabbitmq-quorum (!) | ") || !strings.Contains(text, "| rabbitmq-classic | ") {
		t.Errorf("want the second row marked and the first not:\n%s", text)
	}
}
