// Package failpoint lets a test build end the process at a named point of the code, the n-th time
// that the process reaches it. Such a point is between two steps. A kill at a random moment, or at
// a system call, seldom hits exactly this point.
//
// No shipped package imports it. A build with [Edits] calls Reach at each point of points.go. The
// resulting program reads the environment variable SURGETANK_FAILPOINT:
//
//	list           prints the names of all points, one a line, and exits
//	NAME=N=kill    ends the process by SIGKILL the N-th time that the point is reached
//	NAME=N=panic   panics there instead, so that deferred functions run
package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/surgetank/surgetank/internal/overlay"
)

// Environment is the environment variable that selects a point.
const Environment = "SURGETANK_FAILPOINT"

var (
	armed  Point
	left   atomic.Int64
	panics bool
)

func init() {
	v := os.Getenv(Environment)
	if v == "list" {
		for _, p := range All() {
			fmt.Println(p)
		}
		os.Exit(0)
	}
	if v == "" {
		return
	}
	f := strings.Split(v, "=")
	if len(f) != 3 || !slices.Contains(All(), Point(f[0])) || f[2] != "kill" && f[2] != "panic" {
		fmt.Fprintf(os.Stderr, "%s is %q; it must be list, or NAME=N=kill or NAME=N=panic with a name of the list\n", Environment, v)
		os.Exit(2)
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || n < 1 {
		fmt.Fprintf(os.Stderr, "%s is %q; the number must be at least 1\n", Environment, v)
		os.Exit(2)
	}
	armed, panics = Point(f[0]), f[2] == "panic"
	left.Store(n)
}

// Reach is called when the process reaches a point. If the point is the selected one, the N-th call
// ends the process.
func Reach(p Point) {
	if p != armed || left.Add(-1) != 0 {
		return
	}
	if panics {
		panic("failpoint: " + string(p))
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // wait for the signal
}

// Edits returns the changes for a build with failpoints.
func Edits() (edits []overlay.Edit) {
	for _, p := range points {
		e := overlay.Edit{File: p.file, Old: strings.Trim(p.text, "\n"), Imports: []string{"github.com/surgetank/surgetank/internal/failpoint"}}
		call := fmt.Sprintf("failpoint.Reach(%q)", p.point)
		if p.side == before {
			e.Before = call + "; "
		} else {
			e.After = "; " + call
		}
		edits = append(edits, e)
	}
	return edits
}
