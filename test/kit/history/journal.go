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

// maxLine limits one record of a journal file; records have a few hundred bytes.
const maxLine = 1 << 20

// Journal records calls when they return, in memory for the checkers and in a file for people. Its
// methods are safe for use by many goroutines.
type Journal struct {
	start time.Time // includes the monotonic reading

	mu      sync.Mutex
	file    *os.File
	out     *bufio.Writer
	enc     *json.Encoder
	ops     []Op
	batch   int64
	lastOK  time.Duration // the latest Call that was answered, and so a moment when the server was alive
	failure error
}

// header is the first line of a journal file.
type header struct {
	Journal int       `json:"journal"` // version of the format
	Start   time.Time `json:"start"`
	Name    string    `json:"name"`
	Seed    uint64    `json:"seed"`
}

// Create makes a journal with a file at path. With an empty path the journal is only in memory.
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

// Shift makes the journal's time begin at d, for a history that continues another one. Call it
// before anything is recorded.
func (j *Journal) Shift(d time.Duration) { j.start = j.start.Add(-d) }

// Now returns the journal's time.
func (j *Journal) Now() time.Duration { return time.Since(j.start) }

// At converts a time with a monotonic reading to the journal's time.
func (j *Journal) At(t time.Time) time.Duration { return t.Sub(j.start) }

// Wall converts a time of the wall clock to the journal's time.
func (j *Journal) Wall(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return t.Sub(j.start.Round(0)) // Round removes the monotonic reading
}

// Up records that the server was started at began and is ready now.
func (j *Journal) Up(began time.Time) {
	j.Add(Op{Kind: Up, Outcome: OK, Call: j.At(began), Return: j.Now()})
}

// Down records that the server's process has ended, for the reason err. It was alive until killed
// or, if it ended by itself, at least until its last answered call.
func (j *Journal) Down(killed time.Time, err error) {
	call, note := j.Alive(), "exit"
	if !killed.IsZero() {
		call = j.At(killed)
	}
	if err != nil {
		note = err.Error()
	}
	j.Add(Op{Kind: Down, Outcome: OK, Call: call, Return: j.Now(), Code: note})
}

// Batch returns a new number for the records of one call.
func (j *Journal) Batch() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.batch++
	return j.batch
}

// Add records the messages of one call that has just returned. Close returns the first write error.
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

// Alive returns the latest moment at which the server is known to have been alive: the start of an
// answered call.
func (j *Journal) Alive() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lastOK
}

// Ops returns the records so far. Do not change the slice.
func (j *Journal) Ops() []Op {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ops[:len(j.ops):len(j.ops)]
}

// Close completes the file and returns the journal's first error.
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
