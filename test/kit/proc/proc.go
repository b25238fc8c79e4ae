// Package proc reads what a process uses from Linux's /proc.
package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// RSS returns a process's resident memory in bytes, including garbage. It is 0 without a process or
// without /proc.
func RSS(pid int) int64 { return field(pid, "status", "VmRSS:") << 10 }

// PSS returns a process's proportional set size in bytes: each shared page is divided among its
// users. It is 0 if the process has ended or belongs to another user.
func PSS(pid int) int64 { return field(pid, "smaps_rollup", "Pss:") << 10 }

// Threads returns the number of a process's threads.
func Threads(pid int) int64 { return field(pid, "status", "Threads:") }

// FDs returns the number of a process's open descriptors.
func FDs(pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	return len(entries)
}

// field finds a number in a file of lines like "VmRSS: 123 kB".
func field(pid int, file, name string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64) // the kernel writes only numbers here
			return n
		}
	}
	return 0
}
