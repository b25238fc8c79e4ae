package disklog

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// BenchmarkAppendBesideScrub appends one entry at a time, at most 500 a second, to a log with 256
// MiB of entries. It measures without a scrub, and with a scrub that never pauses. Run it
// with -benchtime 20s or more.
func BenchmarkAppendBesideScrub(b *testing.B) {
	for _, rate := range []int64{0, DefaultScrubRate, 16 * DefaultScrubRate} {
		b.Run(fmt.Sprintf("scrub=%dMiB", rate>>20), func(b *testing.B) {
			o := Options{FS: vfs.OS{}, Dir: filepath.Join(b.TempDir(), "data"), CacheBytes: -1, ScrubEvery: -1}
			_, l, err := Open(o)
			if err != nil {
				b.Fatal(err)
			}
			put := func(size int) time.Duration {
				start := time.Now()
				done := make(chan struct{})
				l.Append(make([]byte, size), func(_ commitlog.Offset, err error) {
					if err != nil {
						b.Error(err)
					}
					close(done)
				})
				<-done
				return time.Since(start)
			}
			for range 256 {
				put(1 << 20)
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
			if rate > 0 {
				o.ScrubEvery, o.ScrubRate = 1, rate
			}
			if _, l, err = Open(o); err != nil {
				b.Fatal(err)
			}
			pace := time.NewTicker(2 * time.Millisecond)
			defer pace.Stop()
			times := make([]time.Duration, 0, b.N)
			b.ResetTimer()
			for range b.N {
				<-pace.C
				times = append(times, put(4<<10))
			}
			b.StopTimer()
			report(b, times)
			b.ReportMetric(float64(l.Stats().Scrub.Bytes)/b.Elapsed().Seconds()/(1<<20), "scrub-MiB/s")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkScrub reads 64 MiB in each round as fast as possible. Its processor time shows the cost
// of a pass.
func BenchmarkScrub(b *testing.B) {
	_, l, err := OpenStepped(Options{FS: vfs.OS{}, Dir: filepath.Join(b.TempDir(), "data"), CacheBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	for range 64 {
		l.Append(make([]byte, 1<<20), func(_ commitlog.Offset, err error) {
			if err != nil {
				b.Error(err)
			}
		})
		l.Pump()
	}
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		for l.ScrubStep() {
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}
