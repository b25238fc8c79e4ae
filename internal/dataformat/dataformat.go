// Package dataformat says which format levels of a data directory this build reads and writes.
//
// A format level is one number for everything in a data directory: record kinds, snapshot frames,
// the JSON of settings and of metadata, and the files of the log. A change that an older build
// cannot read gets a new level. The log stores the level of the newest build that opened the
// directory, together with the oldest version that can read that level. An older build compares the
// levels, refuses the directory, and names the version to use. docs/format.md explains how to add a
// level.
package dataformat

import "fmt"

// Level is one format level.
type Level struct {
	Number uint32
	Since  string // the oldest version of Surgetank that can read a directory of this level
	Adds   string // the change that older builds cannot read
}

// levels are all levels that this build reads, oldest first. It writes the last one. Their numbers
// are consecutive.
var levels = []Level{
	{Number: 1, Since: "0.1.0", Adds: "the first format"},
}

// Written is the level that this build writes. A directory has this level once the build has opened
// it.
func Written() Level { return levels[len(levels)-1] }

// Oldest is the oldest level that this build reads.
func Oldest() Level { return levels[0] }

// Check returns an error if this build cannot read a directory of a level. The error says what the
// user must do. since is the oldest version that reads the directory, according to the directory.
func Check(level uint32, since string) error {
	switch {
	case level > Written().Number:
		return fmt.Errorf("it has format level %d and this build reads levels %d to %d; use Surgetank %s or newer",
			level, Oldest().Number, Written().Number, since)
	case level < Oldest().Number:
		return fmt.Errorf("it has format level %d and this build reads levels %d to %d; open it with an older version of Surgetank first",
			level, Oldest().Number, Written().Number)
	}
	return nil
}
