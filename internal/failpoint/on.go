//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
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
		for _, p := range All {
			fmt.Println(p)
		}
		os.Exit(0)
	}
	if v == "" {
		return
	}
	f := strings.Split(v, "=")
	if len(f) != 3 || !slices.Contains(All, Point(f[0])) || f[2] != "kill" && f[2] != "panic" {
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

// Reach reports that the process is at a point. It ends the process if that is the selected point
// and the N-th time.
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
	select {} // the signal is on its way
}
