package auth

import (
	"net/netip"
	"sync"
	"time"
)

// Failed logins use a bucket of bucketSize failures that refills by one every second. Each failure
// that empties the bucket doubles the refill time, up to maxRefill, until the bucket is full again.
// A login whose bucket is empty waits in line (line.go).
const (
	bucketSize = 5
	minRefill  = time.Second
	maxRefill  = 30 * time.Second
	maxBuckets = 4096 // per throttle; the names come from clients, so their number is limited
)

// throttle counts failed logins by key: a peer's network or a user name. Successes are not counted.
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

// wait returns how long key must wait before its next attempt, or 0.
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

// failed records one failure of key.
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

// makeRoom removes buckets that are full again. If there are none, it removes an arbitrary one.
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

// peerKey returns the key of a peer's network: an IPv4 address, or an IPv6 /64, which is one
// customer's network. All programs of this machine are one peer, and so are all peers that a proxy
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

// userKey has separate keys for the network and the machine, so guesses from the network cannot
// lock a user out on the machine.
func userKey(name string, peer netip.Addr) string {
	if peer.Unmap().IsLoopback() {
		return "local " + name
	}
	return "remote " + name
}
