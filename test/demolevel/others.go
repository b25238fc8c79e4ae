package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank/test/kit/load"
)

// usage is the processor time since the start of the machine, in ticks.
type usage struct {
	all, busy int64 // of all processors
	own       int64 // of this program and the processes that it started
}

// usageNow reads /proc. Without /proc it returns zeros.
func usageNow() usage {
	var u usage
	text, _ := os.ReadFile("/proc/stat") // an error: no processor time is known
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil || i > 8 { // the fields after steal are part of others
			continue
		}
		u.all += n
		if i != 4 && i != 5 { // idle, iowait
			u.busy += n
		}
	}
	parents, ticks := map[int]int{}, map[int]int64{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is correct
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // the process has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
		if len(fields) < 15 {
			continue
		}
		parents[pid], _ = strconv.Atoi(fields[1])
		for _, f := range fields[11:15] { // own time, and time of children that have ended
			n, _ := strconv.ParseInt(f, 10, 64)
			ticks[pid] += n
		}
	}
	for pid := range parents {
		for p := pid; p > 1; p = parents[p] {
			if p == os.Getpid() {
				u.own += ticks[pid]
				break
			}
		}
	}
	return u
}

// othersSince returns the share of the machine's processor time that other programs used, from 0
// to 1.
func (u usage) othersSince(from usage) float64 {
	all := u.all - from.all
	if all <= 0 {
		return 0
	}
	return max(0, float64(u.busy-from.busy-(u.own-from.own))/float64(all))
}

// calm waits until other programs need less than a share of the machine, at most for ten minutes.
func calm(ctx context.Context, share float64) error {
	for range 300 {
		from := usageNow()
		if err := load.Pause(ctx, 2*time.Second); err != nil {
			return err
		}
		if usageNow().othersSince(from) < share {
			return nil
		}
	}
	return nil
}
