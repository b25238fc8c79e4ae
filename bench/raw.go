package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// limit measures the bound, without queue, checksum and server. Producers in this process append to
// one growing file. One goroutine writes and fdatasyncs their gathered data.
type limit struct {
	mu     sync.Mutex
	cond   *sync.Cond
	buf    []byte
	wait   []func(error)
	closed bool
	done   chan struct{}
}

const rawFile = 256 << 20

// prealloc makes a file of zeros and syncs it.
func prealloc(path string, size int) (*os.File, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	zero := make([]byte, 1<<20)
	for range size >> 20 {
		if _, err := f.Write(zero); err != nil {
			return nil, err
		}
	}
	return f, f.Sync()
}

func newLimit(dir string) (*limit, error) {
	f, err := os.Create(filepath.Join(dir, "limit"))
	if err != nil {
		return nil, err
	}
	t := &limit{done: make(chan struct{})}
	t.cond = sync.NewCond(&t.mu)
	go t.run(f)
	return t, nil
}

func (t *limit) run(f *os.File) {
	defer close(t.done)
	defer os.Remove(f.Name())
	defer f.Close()
	var buf []byte
	var wait []func(error)
	var at int64
	for {
		t.mu.Lock()
		for len(t.buf) == 0 {
			if t.closed {
				t.mu.Unlock()
				return
			}
			t.cond.Wait()
		}
		buf, t.buf = t.buf, buf[:0]
		wait, t.wait = t.wait, wait[:0]
		t.mu.Unlock()
		_, err := f.WriteAt(buf, at)
		at += int64(len(buf))
		if err == nil {
			err = datasync(f)
		}
		for _, w := range wait {
			w(err)
		}
	}
}

func (t *limit) send(body []byte, done func(error)) error {
	t.mu.Lock()
	t.buf = append(t.buf, body...)
	t.wait = append(t.wait, done)
	t.cond.Signal()
	t.mu.Unlock()
	return nil
}

func (t *limit) close() {
	t.mu.Lock()
	t.closed = true
	t.cond.Signal()
	t.mu.Unlock()
	<-t.done
}

// rawSync measures a bare write and fdatasync of size bytes into a preallocated file.
func rawSync(dir string, size int, d time.Duration) ([]time.Duration, error) {
	f, err := prealloc(filepath.Join(dir, "raw"), rawFile)
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := random(size)
	var took []time.Duration
	at := int64(0)
	for end := time.Now().Add(d); time.Now().Before(end); {
		start := time.Now()
		if at+int64(size) > rawFile {
			at = 0
		}
		if _, err := f.WriteAt(buf, at); err != nil {
			return nil, err
		}
		if err := datasync(f); err != nil {
			return nil, err
		}
		at += int64(size)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
