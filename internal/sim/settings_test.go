package sim

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

// notDrawn are settings that no queue plan draws, with the reason.
var notDrawn = map[string]string{
	"paused":       "queues are paused and resumed while the simulation runs",
	"paused_until": "some of those pauses have an end",
}

// TestEverySettingIsDrawn: every setting of a queue must be drawn by some plan, because other
// settings are not simulated.
func TestEverySettingIsDrawn(t *testing.T) {
	missing := map[string]bool{}
	for i := range settings.Table {
		missing[settings.Table[i].Path] = true
	}
	for seed := range uint64(2000) {
		for _, q := range Draw(seed).Queues {
			for i := range settings.Table {
				s := &settings.Table[i]
				var none, defaults surgetank.QueueConfig
				defaults = settings.WithDefaults(none)
				if !s.Same(&q.Config, &none) && !s.Same(&q.Config, &defaults) {
					delete(missing, s.Path)
				}
			}
		}
	}
	for path := range notDrawn {
		if !missing[path] {
			t.Errorf("%s is drawn; remove it from notDrawn", path)
		}
		delete(missing, path)
	}
	for path := range missing {
		t.Errorf("no plan has a value for %s: draw one in drawQueue, or say in notDrawn why not", path)
	}
}
