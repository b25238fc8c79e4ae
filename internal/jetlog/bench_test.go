package jetlog

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
)

// BenchmarkAppend compares appends of the log with bare appends of the same blobs, which have the
// same conditions and the same number of bytes in flight.
//
//	go test ./internal/jetlog -run - -bench Append -benchtime 1000x
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{64 << 10, 256 << 10, 800 << 10} {
		data := make([]byte, size)
		if _, err := rand.Read(data); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("log/%dKiB", size>>10), func(b *testing.B) {
			r := newRig(b, calm())
			replay, l, err := open(b.Context(), r.options(), 0)
			if err != nil {
				b.Fatal(err)
			}
			if err := replay.Close(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			free := make(chan struct{}, 16)
			for range b.N {
				free <- struct{}{}
				l.Append(data, func(_ commitlog.Offset, err error) {
					if err != nil {
						b.Error(err)
					}
					<-free
				})
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
		b.Run(fmt.Sprintf("bare/%dKiB", size>>10), func(b *testing.B) {
			r := newRig(b, calm())
			l, err := Acquire(b.Context(), r.options())
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			flight := max(1, (fenced.DefaultWindow+size-1)/size)
			free := make(chan struct{}, flight)
			l.stream.Listen(func(a fenced.Answer) {
				if a.Err != nil {
					b.Error(a.Err)
				}
				<-free
			}, func() {})
			for n := range uint64(b.N) {
				free <- struct{}{}
				if err := l.stream.Send(l.Epoch(), n+1, l.Epoch()+n, data); err != nil {
					b.Fatal(err)
				}
			}
			for range flight {
				free <- struct{}{}
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
