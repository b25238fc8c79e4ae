package embedded_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the processor time of the process. Other programs on the machine do not add to
// it.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
