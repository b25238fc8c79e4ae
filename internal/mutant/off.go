//go:build !mutants

// Package mutant lets a test build break promises on purpose, to show that the checkers notice. In
// every other build Is is constantly false and the compiler removes what stands behind it.
package mutant

// Is tells whether a defect is switched on.
func Is(Defect) bool { return false }
