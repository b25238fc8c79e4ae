package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// maxLine bounds one record of a journal file; records are a few hundred bytes.
const maxLine = 1 << 20

// Journal records calls as they return, in memory for the checkers and in a file for people. Its
// methods may be called by many goroutines.
type Journal struct {
	start time.Time // with the monotonic reading

	mu      sync.Mutex
	file    *os.File
	out     *bufio.Writer
	enc     *json.Encoder
	ops     []Op
	batch   int64
	lastOK  time.Duration // the latest Call that was answered, and so a moment when the server lived
	failure error
}

// header is the first line of a journal file.
type header struct {
	Journal int       `json:"journal"` // version of the format
	Start   time.Time `json:"start"`
	Name    string    `json:"name"`
	Seed    uint64    `json:"seed"`
}

// Create makes a journal with a file of that path; an empty path keeps it in memory alone.
func Create(path, name string, seed uint64) (*Journal, error) {
	j := &Journal{start: time.Now()}
	if path == "" {
		return j, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the journal: %w", err)
	}
	j.file, j.out = f, bufio.NewWriterSize(f, 64<<10)
	j.enc = json.NewEncoder(j.out)
	j.failure = j.enc.Encode(header{1, j.start.UTC(), name, seed})
	return j, nil
}

// Shift lets the journal's time begin at d, for a history that goes on where another one ended. It
// must be called before anything is recorded.
func (j *Journal) Shift(d time.Duration) { j.start = j.start.Add(-d) }

// Now is the time of the journal.
func (j *Journal) Now() time.Duration { return time.Since(j.start) }

// Wall is the time of the journal at which the wall clock showed t.
func (j *Journal) Wall(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return t.Sub(j.start.Round(0)) // Round strips the monotonic reading
}

// Batch gives a new number for the records of one call.
func (j *Journal) Batch() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.batch++
	return j.batch
}

// Add records the messages of one call, which has just returned. The first write error is kept for
// Close.
func (j *Journal) Add(ops ...Op) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range ops {
		j.add(&ops[i])
	}
}

func (j *Journal) add(op *Op) {
	if op.Outcome == OK && op.Call > j.lastOK {
		j.lastOK = op.Call
	}
	j.ops = append(j.ops, *op)
	if j.enc != nil && j.failure == nil {
		j.failure = j.enc.Encode(op)
	}
}

// Alive is the latest moment at which the server is known to have lived: the beginning of a call
// that it answered.
func (j *Journal) Alive() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lastOK
}

// Ops gives what was recorded so far; the slice must not be changed.
func (j *Journal) Ops() []Op {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ops[:len(j.ops):len(j.ops)]
}

// Close writes the file to its end and gives the first error that the journal met.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := errors.Join(j.failure, j.out.Flush(), j.file.Close())
	j.file, j.enc = nil, nil
	return err
}

// Read reads a journal file.
func Read(r io.Reader) (ops []Op, err error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	for line := 1; in.Scan(); line++ {
		if line == 1 {
			var h header
			if err := json.Unmarshal(in.Bytes(), &h); err != nil || h.Journal != 1 {
				return nil, fmt.Errorf("line 1 is not the header of a journal this program can read")
			}
			continue
		}
		var op Op
		if err := json.Unmarshal(in.Bytes(), &op); err != nil {
			return nil, fmt.Errorf("line %d of the journal: %w", line, err)
		}
		ops = append(ops, op)
	}
	return ops, in.Err()
}
