package adapt

import "testing"

// TestPlantedMistakes checks that the scenarios fail for controllers with one of two well-known
// mistakes.
func TestPlantedMistakes(t *testing.T) {
	for _, m := range []struct {
		mistake, scenario string
		plant             func(*pair)
	}{
		{"a baseline under the own load", "8 × backlog", func(p *pair) { p.ownLoad = true }},
		{"failures that count as latency", "60 % fail at once", func(p *pair) { p.failuresLatency = true }},
	} {
		for _, s := range scenarios {
			if s.name != m.scenario {
				continue
			}
			s = s.withDefaults()
			s.seeds = 1
			workers := s.measure(func() limiter { return naive{} })
			got := s.measure(func() limiter {
				p := newPair(0)
				m.plant(p)
				return p
			})
			drain := got.drain / workers.drain
			t.Logf("%s, %s: %.2f / %.2f, failed rows %.0f", m.mistake, s.name, got.p99, drain, got.failed)
			if got.p99 <= s.p99 && drain <= s.drain {
				t.Errorf("%s: the scenario %q does not see it: %.2f / %.2f within %.1f / %.1f", m.mistake, s.name, got.p99, drain, s.p99, s.drain)
			}
		}
	}
}
