package adapt

import "fmt"

// Defaults and bounds of Settings.
const (
	DefaultMin       = 1
	DefaultMax       = 64
	DefaultTolerance = 1.5

	LimitMax     = 65535 // the largest Settings.Max
	ToleranceMin = 1.2   // below this, a backlog for a target with unsteady latency is drained several times slower
	ToleranceMax = 10
)

// Settings are the bounds of a Controller. A zero field means its default.
type Settings struct {
	Min       int     // the limit during probes, and the smallest limit
	Max       int     // the largest limit
	Tolerance float64 // the accepted latency under load, as a multiple of the latency in a probe
	BatchMax  int     // the largest batch of a sink in rows; 0 if jobs are single messages
}

// WithDefaults returns the settings with defaults in place of zero fields. If Max is zero and Min
// is above DefaultMax, Max is set to Min.
func (s Settings) WithDefaults() Settings {
	if s.Min == 0 {
		s.Min = DefaultMin
	}
	if s.Max == 0 {
		s.Max = max(DefaultMax, s.Min)
	}
	if s.Tolerance == 0 {
		s.Tolerance = DefaultTolerance
	}
	return s
}

// Validate returns an error if the settings, with their defaults, are out of bounds. The error
// names the setting as users write it.
func (s Settings) Validate() error {
	s = s.WithDefaults()
	switch {
	case s.Min < 1 || s.Min > LimitMax:
		return fmt.Errorf("level.adaptive.min is %d: set it to a number from 1 to %d", s.Min, LimitMax)
	case s.Max < s.Min || s.Max > LimitMax:
		return fmt.Errorf("level.adaptive.max is %d: set it to a number from %d (min) to %d", s.Max, s.Min, LimitMax)
	case !(s.Tolerance >= ToleranceMin && s.Tolerance <= ToleranceMax):
		return fmt.Errorf("level.adaptive.tolerance is %g: set it to a number from %g to %g; with less, a target whose latency is unsteady is drained very slowly",
			s.Tolerance, ToleranceMin, float64(ToleranceMax))
	case s.BatchMax < 0:
		return fmt.Errorf("batch.max is %d: set it to 1 or more", s.BatchMax)
	}
	return nil
}

// bounded returns settings that are safe to compute with, whatever the caller passed.
func (s Settings) bounded() Settings {
	s = s.WithDefaults()
	s.Min = min(max(s.Min, 1), LimitMax)
	s.Max = min(max(s.Max, s.Min), LimitMax)
	if !(s.Tolerance >= ToleranceMin) { // also true for NaN
		s.Tolerance = ToleranceMin
	}
	s.Tolerance = min(s.Tolerance, ToleranceMax)
	s.BatchMax = max(s.BatchMax, 0)
	return s
}
