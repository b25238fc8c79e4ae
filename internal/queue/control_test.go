package queue

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/adapt"
	"github.com/surgetank/surgetank/internal/settings"
)

// Package settings does not import package adapt, so this test compares their bounds.
func TestAdaptiveBounds(t *testing.T) {
	if settings.AdaptiveMax != adapt.LimitMax || settings.AdaptiveToleranceMin != adapt.ToleranceMin || settings.AdaptiveToleranceMax != adapt.ToleranceMax {
		t.Fatal("the bounds of the settings differ from the bounds of the controller")
	}
	for _, c := range []surgetank.AdaptiveConfig{{On: true}, {On: true, Min: 100}, {On: true, Max: 1}, {On: true, Min: 65535}, {On: true, Min: 2, Max: 1}, {On: true, Max: 65536},
		{On: true, Tolerance: 1.1}, {On: true, Tolerance: 10}, {On: true, Tolerance: 11}, {On: true, Min: -1}} {
		got := settings.Validate(surgetank.QueueConfig{Level: surgetank.LevelConfig{Adaptive: c}})
		if want := adaptSettings(c).Validate(); (got == nil) != (want == nil) {
			t.Errorf("%+v: settings say %v, the controller %v", c, got, want)
		}
	}
}
