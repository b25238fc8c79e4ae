//go:build !failpoints

// Package failpoint lets a test build end the process at a named point of the code, the n-th time
// that the process reaches it. Such a point is between two steps that a kill at a random moment, or
// at a system call, seldom separates. In all other builds Reach does nothing, and the compiler
// removes it.
//
// A program built with the tag failpoints reads the environment variable SURGETANK_FAILPOINT:
//
//	list           prints the names of all points, one a line, and exits
//	NAME=N=kill    ends the process by SIGKILL the N-th time that the point is reached
//	NAME=N=panic   panics there instead, so that deferred functions run
package failpoint

// Reach reports that the process is at a point.
func Reach(Point) {}
