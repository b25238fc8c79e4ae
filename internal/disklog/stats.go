package disklog

import (
	"math/bits"
	"sync"
	"time"
)

// Stats are statistics of an open log.
type Stats struct {
	Segments   int   // live segment files
	Entries    int64 // entries in the live segments
	Bytes      int64 // bytes of all files on disk, including prepared ones
	Written    int64 // bytes of frames written since Open
	Syncs      int64 // batches synced since Open
	LastSync   time.Duration
	SyncP50    time.Duration // median and 99th percentile of the syncs since Open, within 6 %
	SyncP99    time.Duration
	CacheBytes int64 // bytes of entries kept in memory
	Full       bool  // the disk has no room for the next segment
	Scrub      ScrubStats
}

// Stats returns the log's statistics.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	full, next := l.full, l.next
	l.mu.Unlock()
	l.segMu.RLock()
	s := Stats{Full: full, Segments: len(l.segs)}
	for _, seg := range l.segs {
		s.Entries += int64(len(seg.index))
		s.Bytes += seg.size
	}
	l.segMu.RUnlock()
	if next != nil {
		s.Bytes += next.seg.size
	}
	s.Bytes += l.ahead.Load()
	s.Scrub = l.scrub.stats.get()
	s.CacheBytes = l.recent.size() + l.cold.size()
	l.stats.mu.Lock()
	defer l.stats.mu.Unlock()
	s.Written, s.Syncs, s.LastSync = l.stats.written, l.stats.syncs, l.stats.last
	s.SyncP50, s.SyncP99 = l.stats.quantile(0.50), l.stats.quantile(0.99)
	return s
}

// stats counts syncs. Its histogram has 16 buckets for each doubling of a duration.
type stats struct {
	mu      sync.Mutex
	written int64
	syncs   int64
	last    time.Duration
	buckets [48 * 16]int64
}

func (s *stats) synced(d time.Duration, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += bytes
	s.syncs++
	s.last = d
	s.buckets[bucketOf(d)]++
}

// bytes returns how many bytes were written.
func (s *stats) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// bucketOf returns the bucket of a duration. Each duration below 16 ns has its own bucket. Above,
// there are 16 buckets for each power of two.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 16 {
		return int(n)
	}
	e := bits.Len64(n) - 5
	return min(e*16+int(n>>e), 48*16-1)
}

// bucketEnd returns the longest duration of a bucket.
func bucketEnd(b int) time.Duration {
	if b < 32 {
		return time.Duration(b)
	}
	e := b/16 - 1
	return time.Duration((uint64(b%16+16)+1)<<e - 1)
}

func (s *stats) quantile(q float64) time.Duration {
	want := int64(q*float64(s.syncs) + 0.5)
	var n int64
	for b, count := range s.buckets {
		if n += count; count > 0 && n >= want {
			return bucketEnd(b)
		}
	}
	return 0
}
