//go:build mutants

package mutant

var active Defect

// Is tells whether a defect is switched on.
func Is(d Defect) bool { return d == active }

// Set switches a defect on, and all others off. It must not be called while a broker runs.
func Set(d Defect) { active = d }
