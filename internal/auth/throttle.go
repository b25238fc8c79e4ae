package auth

import (
	"net/netip"
	"sync"
	"time"
)

// Failed logins: a bucket of bucketSize failures that refills by one every second; each failure
// that empties it doubles the time to the next, up to maxRefill, until the bucket was full again. A
// login whose bucket is empty waits in line (line.go).
const (
	bucketSize = 5
	minRefill  = time.Second
	maxRefill  = 30 * time.Second
	maxBuckets = 4096 // of a throttle; the names come from outside, so their number is bounded
)

// throttle counts failed logins by key (a peer's network, a user name). Successes cost nothing.
type throttle struct {
	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	refill time.Duration
	last   time.Time
}

func newThrottle() *throttle { return &throttle{buckets: map[string]*bucket{}} }

func (b *bucket) advance(now time.Time) {
	if d := now.Sub(b.last); d > 0 {
		b.tokens += float64(d) / float64(b.refill)
	}
	b.last = now
	if b.tokens >= bucketSize {
		b.tokens, b.refill = bucketSize, minRefill
	}
}

// wait gives how long key must wait before its next attempt; 0 when it may try now.
func (t *throttle) wait(key string, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buckets[key]
	if b == nil {
		return 0
	}
	b.advance(now)
	if b.tokens >= 1 {
		return 0
	}
	return max(time.Millisecond, time.Duration((1-b.tokens)*float64(b.refill)))
}

// failed charges key with one failure.
func (t *throttle) failed(key string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buckets[key]
	if b == nil {
		t.makeRoom(now)
		b = &bucket{tokens: bucketSize, refill: minRefill, last: now}
		t.buckets[key] = b
	}
	b.advance(now)
	b.tokens = max(0, b.tokens-1)
	if b.tokens < 1 {
		b.refill = min(maxRefill, 2*b.refill)
	}
}

// makeRoom drops buckets that are full again and, when there are none, an arbitrary one.
func (t *throttle) makeRoom(now time.Time) {
	if len(t.buckets) < maxBuckets {
		return
	}
	for key, b := range t.buckets {
		if b.advance(now); b.tokens >= bucketSize {
			delete(t.buckets, key)
		}
	}
	for key := range t.buckets {
		if len(t.buckets) < maxBuckets {
			return
		}
		delete(t.buckets, key)
	}
}

// peerKey names the network a peer is charged under: an IPv4 address, or an IPv6 /64, which is what
// one customer has. All programs of this machine are one peer, and so are all peers that a proxy
// hides.
func peerKey(peer netip.Addr) string {
	peer = peer.Unmap()
	switch {
	case !peer.IsValid():
		return "unknown"
	case peer.IsLoopback():
		return "loopback"
	case peer.Is6():
		p, err := peer.WithZone("").Prefix(64)
		if err != nil {
			return "unknown"
		}
		return p.String()
	}
	return peer.String()
}

// userKey keeps guesses from the network from locking a user out on the machine itself.
func userKey(name string, peer netip.Addr) string {
	if peer.Unmap().IsLoopback() {
		return "local " + name
	}
	return "remote " + name
}
