package disklog

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

var benchSizes = []int{1 << 10, 64 << 10, 1 << 20}

func sizeName(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return fmt.Sprintf("%dKiB", n>>10)
}

// report reports the median and the 99th percentile of durations.
func report(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkAppend appends entries one at a time (alone), or keeps 64 appends waiting for their
// syncs. Compare it with BenchmarkRaw of the same run. BenchmarkRaw writes the same bytes to one
// file and syncs after each write. It writes into space that was only reserved, and into space that
// was written before. Run it on the file system in question: TMPDIR=/dir go test -bench
// 'Append|Raw' ./internal/disklog
func BenchmarkAppend(b *testing.B) {
	for _, size := range benchSizes {
		for _, flight := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/flight=%d", sizeName(size), flight), func(b *testing.B) {
				r, l, err := Open(Options{FS: vfs.OS{}, Dir: filepath.Join(b.TempDir(), "data"), CacheBytes: -1})
				if err != nil {
					b.Fatal(err)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
				data := make([]byte, size)
				tickets := make(chan struct{}, flight)
				times := make([]time.Duration, 0, b.N)
				b.SetBytes(int64(size))
				b.ResetTimer()
				for range b.N {
					tickets <- struct{}{}
					start := time.Now()
					l.Append(data, func(at commitlog.Offset, err error) {
						if err != nil {
							b.Error(err)
						}
						times = append(times, time.Since(start))
						if at%64 == 0 {
							if err := l.Trim(at); err != nil {
								b.Error(err)
							}
						}
						<-tickets
					})
					if flight == 1 {
						tickets <- struct{}{} // wait for the entry
						<-tickets
					}
				}
				for range flight {
					tickets <- struct{}{}
				}
				b.StopTimer()
				report(b, times)
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkRaw measures the fastest possible append: pwrite and fdatasync of the same bytes.
func BenchmarkRaw(b *testing.B) {
	for _, size := range benchSizes {
		for _, over := range []bool{false, true} {
			name := "reserved"
			if over {
				name = "overwritten"
			}
			b.Run(fmt.Sprintf("%s/%s", sizeName(size), name), func(b *testing.B) {
				f, err := vfs.OS{}.Open(filepath.Join(b.TempDir(), "raw"), vfs.Create)
				if err != nil {
					b.Fatal(err)
				}
				defer func() {
					if err := f.Close(); err != nil {
						b.Error(err)
					}
				}()
				const room = 256 << 20
				if err := f.Preallocate(room); err != nil {
					b.Fatal(err)
				}
				if over {
					if err := zeroAll(f, room); err != nil {
						b.Fatal(err)
					}
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				data := make([]byte, size)
				times := make([]time.Duration, 0, b.N)
				b.SetBytes(int64(size))
				b.ResetTimer()
				for i := range b.N {
					start := time.Now()
					if _, err := f.WriteAt(data, int64(i)*int64(size)%room); err != nil {
						b.Fatal(err)
					}
					if err := f.Sync(); err != nil {
						b.Fatal(err)
					}
					times = append(times, time.Since(start))
				}
				b.StopTimer()
				report(b, times)
			})
		}
	}
}

// BenchmarkRead reads entries from memory and from disk.
func BenchmarkRead(b *testing.B) {
	for _, cache := range []int64{0, -1} {
		name := "memory"
		if cache < 0 {
			name = "disk"
		}
		b.Run(name, func(b *testing.B) {
			r, l, err := Open(Options{FS: vfs.OS{}, Dir: filepath.Join(b.TempDir(), "data"), CacheBytes: cache})
			if err != nil {
				b.Fatal(err)
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
			const n = 1000
			done := make(chan struct{})
			for i := range n {
				l.Append(make([]byte, 16<<10), func(commitlog.Offset, error) {
					if i == n-1 {
						close(done)
					}
				})
			}
			<-done
			b.SetBytes(16 << 10)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for at := commitlog.Offset(0); pb.Next(); at++ {
					if _, err := l.Read(at%n + 1); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
