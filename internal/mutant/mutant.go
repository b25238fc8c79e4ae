// Package mutant plants defects in test builds, to show that the checkers detect them. No shipped
// package imports it: the defects are texts in plants.go, and package overlay writes them into
// copies of the source.
//
// There are two kinds of builds. In a build with [Edits], one defect is always on. In a build with
// [Switchable], all defects are in the code, and Set switches one of them on.
package mutant

// Planted reports whether this build has the switchable defects.
const Planted = false

var active Defect

// Is reports whether a defect is switched on.
func Is(d Defect) bool { return d == active }

// Set switches a defect on, and all other defects off. It must not be called while a broker runs.
func Set(d Defect) { active = d }
