//go:build !mutants

// Package mutant lets a test build break promises on purpose, to show that the checkers detect it.
// In all other builds Is is constantly false, and the compiler removes the code under it.
package mutant

// Is tells whether a defect is switched on.
func Is(Defect) bool { return false }
