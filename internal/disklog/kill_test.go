package disklog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// killEntry makes an entry that can be checked by its own bytes.
func killEntry(number uint64) []byte {
	b := make([]byte, 8+rand.New(rand.NewPCG(number, 1)).IntN(2000))
	binary.LittleEndian.PutUint64(b, number)
	for i := 8; i < len(b); i++ {
		b[i] = byte(number + uint64(i))
	}
	return b
}

// TestKill runs this test binary as a process that appends entries and prints which are durable. It
// kills the process with SIGKILL at a random moment, again and again on the same files. All entries
// that were printed must be in the log.
func TestKill(t *testing.T) {
	if dir := os.Getenv("DISKLOG_TEST_KILL"); dir != "" {
		appendUntilKilled(dir)
		return
	}
	cycles := 10
	if testing.Short() {
		cycles = 3
	}
	dir := filepath.Join(t.TempDir(), "data")
	rng := rand.New(rand.NewPCG(1, 2))
	confirmed := uint64(0)
	for cycle := range cycles {
		other := exec.Command(os.Args[0], "-test.run=^TestKill$")
		other.Env = append(os.Environ(), "DISKLOG_TEST_KILL="+dir)
		other.Stderr = os.Stderr
		stdout, err := other.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		for n := 1 + rng.IntN(400); n > 0 && lines.Scan(); n-- {
			number, err := strconv.ParseUint(strings.TrimSpace(lines.Text()), 10, 64)
			if err != nil {
				t.Fatalf("cycle %d: the process says %q", cycle, lines.Text())
			}
			confirmed = number
		}
		if err := other.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // lines that the process printed before it was killed
			if number, err := strconv.ParseUint(strings.TrimSpace(lines.Text()), 10, 64); err == nil {
				confirmed = number
			}
		}
		_ = other.Wait() // an error is expected, because the process was killed

		_, all, l, err := contentsBy(Open, Options{FS: vfs.OS{}, Dir: dir, SegmentBytes: 64 << 10, CacheBytes: -1})
		if err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
		if uint64(len(all)) < confirmed {
			t.Fatalf("cycle %d: %d entries, and %d were confirmed", cycle, len(all), confirmed)
		}
		for i, data := range all {
			if !bytes.Equal(data, killEntry(uint64(i+1))) {
				t.Fatalf("cycle %d: entry %d is not what was appended", cycle, i+1)
			}
		}
		confirmed = uint64(len(all))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	report, err := Verify(vfs.OS{}, dir, nil)
	if err != nil || !report.Whole() || report.Entries < int(confirmed) {
		t.Errorf("verify after %d kills: %d entries of %d, %v, %v", cycles, report.Entries, confirmed, report.Problems, err)
	}
	t.Logf("%d kills, %d entries", cycles, confirmed)
}

func appendUntilKilled(dir string) {
	_, all, l, err := contentsBy(Open, Options{FS: vfs.OS{}, Dir: dir, SegmentBytes: 64 << 10, CacheBytes: -1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	room := make(chan struct{}, 16)
	for number := uint64(len(all)) + 1; ; number++ {
		room <- struct{}{}
		l.Append(killEntry(number), func(at commitlog.Offset, err error) {
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			fmt.Println(uint64(at))
			<-room
		})
	}
}
