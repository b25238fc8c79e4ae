package sink

import (
	"fmt"
	"sync"
)

// brake keeps a mistake in the settings from parking a whole queue. It counts bad messages in
// sequence, with no message written between them. Above the limit no more messages are parked until
// a message is written or a user resumes the sink.
//
// It belongs to the runner and is safe for use by many goroutines.
type brake struct {
	mu     sync.Mutex
	limit  int  // messages parked in sequence; 0 or less: no limit
	run    int  // messages parked since the last message was written
	off    bool // a user has resumed the sink: parking goes on until a message is written
	pulled bool // messages are held back because of the limit
	last   string
}

// judge divides the bad messages of one attempt into messages to park and messages to hold back.
// good says whether the attempt wrote a message.
func (b *brake) judge(good bool, bad []*entry) (park, hold []*entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if good {
		b.run, b.off, b.pulled = 0, false, false
	}
	if len(bad) == 0 {
		return nil, nil
	}
	b.last = bad[len(bad)-1].hold.reason
	fresh := 0
	for _, e := range bad {
		if !e.hold.proven() {
			fresh++
		}
	}
	if b.limit <= 0 || b.off || good || b.run+fresh <= b.limit {
		if !good {
			b.run += fresh
		}
		return bad, nil
	}
	for _, e := range bad {
		if e.hold.proven() {
			park = append(park, e)
		} else {
			hold = append(hold, e)
		}
	}
	b.pulled = true
	return park, hold
}

// exceeds reports whether this many more bad messages, with none written, would pull the brake.
func (b *brake) exceeds(more int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit > 0 && !b.off && b.run+more > b.limit
}

// reset lets the sink park again until a message is written.
func (b *brake) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.run, b.off, b.pulled = 0, true, false
}

// on returns the brake's explanation while it is pulled, and "" otherwise.
func (b *brake) on(held int64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.pulled {
		return ""
	}
	return fmt.Sprintf("the brake is on: %d messages in sequence were parked or held back, and none could be written. %d stay in the queue; no more are parked. "+
		"Mend the settings or the table, or resume the sink to park on. The last message's error: %s", b.run+int(held), held, b.last)
}

// rejecting returns the number of messages parked since a message was last written, and the reason
// of the newest of them.
func (b *brake) rejecting() (int, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.run, b.last
}
