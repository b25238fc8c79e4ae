//go:build !linux

package embedded_test

import "time"

var started = time.Now()

// cpuTime returns the time that passed. Other programs on the machine add to it.
func cpuTime() time.Duration { return time.Since(started) }
