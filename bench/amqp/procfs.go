//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/surgetank/surgetank/test/kit/proc"
)

// clockTicks is the unit of the CPU times in /proc: USER_HZ, which is 100 on every architecture of
// Go.
const clockTicks = 100

// procStat is the content of /proc/PID/stat (proc(5)).
type procStat struct {
	parent int
	state  byte
	cpu    float64 // seconds, including those of ended and awaited children
}

// parseStat reads a line of /proc/PID/stat. The process's name in brackets can contain any
// characters, so the fields are counted after its end.
func parseStat(line string) (procStat, bool) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 15 {
		return procStat{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return procStat{}, false
	}
	s := procStat{parent: parent, state: fields[0][0]}
	for _, f := range fields[11:15] { // utime stime cutime cstime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return procStat{}, false
		}
		s.cpu += float64(ticks) / clockTicks
	}
	return s, true
}

func readStat(pid int) (procStat, bool) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, false
	}
	return parseStat(string(line))
}

// alive reports whether a process exists and is not a zombie.
func alive(pid int) bool {
	s, ok := readStat(pid)
	return ok && s.state != 'Z'
}

// processTree returns a process and all its descendants.
func processTree(root int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []int{root}
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, ok := readStat(pid); ok {
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

// treeCPU returns the CPU seconds of a process tree.
func treeCPU(root int) (seconds float64) {
	for _, pid := range processTree(root) {
		if s, ok := readStat(pid); ok {
			seconds += s.cpu
		}
	}
	return seconds
}

// treePSS returns the proportional set size of a process tree in bytes: shared memory is counted
// once. Processes that have ended or belong to another user are left out.
func treePSS(root int) (bytes int64) {
	for _, pid := range processTree(root) {
		bytes += proc.PSS(pid)
	}
	return bytes
}

// machineCPU returns the CPU seconds that all cores together were busy since the machine started.
func machineCPU() float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	busy := 0.0
	for i, f := range fields {
		if i == 0 || i == 4 || i == 5 || i > 8 { // "cpu", idle, iowait; guest time is part of user time
			continue
		}
		ticks, _ := strconv.ParseInt(f, 10, 64)
		busy += float64(ticks) / clockTicks
	}
	return busy
}

// ownCPU returns the CPU seconds of this process.
func ownCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// deviceCounters sums the written bytes and the cache flushes of all whole disks
// (Documentation/admin-guide/iostats.rst). The counters show which server really syncs.
func deviceCounters() (written, flushes int64) {
	text, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 20 {
			continue
		}
		if _, err := os.Stat("/sys/block/" + f[2]); err != nil {
			continue // a partition is counted with its disk
		}
		sectors, _ := strconv.ParseInt(f[9], 10, 64)
		n, _ := strconv.ParseInt(f[18], 10, 64)
		written += sectors * 512
		flushes += n
	}
	return written, flushes
}
