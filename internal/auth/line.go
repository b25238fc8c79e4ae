package auth

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
)

// A login whose peer or user has too many failures is still checked, because its password may be
// right. Otherwise an attacker could lock a user out. Such late logins wait in a separate line.
//
//   - One login is checked at a time. After a wrong password the next check starts latePause later.
//     So all guesses beyond the buckets share this one rate.
//   - Peers alternate. A peer with many waiting logins delays itself, and delays each other peer by
//     one check per turn.
//   - At most maxLate logins wait in the line. If it is full, a random login is removed from it and
//     told to come back, so a flood cannot keep one login out for ever.
const (
	latePause = 50 * time.Millisecond
	maxLate   = 256
)

// line is the line of late logins. It is safe for use by many goroutines.
type line struct {
	pause time.Duration

	mu    sync.Mutex
	busy  bool          // a login is being checked, or the pause after a wrong password lasts
	peers []*lateGuests // peers with waiting logins; the first has the next turn
	of    map[string]*lateGuests
	count int
}

// lateGuests are the waiting logins of one peer.
type lateGuests struct {
	peer    string
	waiting []chan bool // true: the login's turn has come; false: the login was removed from the line
}

func newLine() *line { return &line{pause: latePause, of: map[string]*lateGuests{}} }

// enter waits for the turn of a login from peer. After success the caller must call leave.
func (l *line) enter(ctx context.Context, peer string) error {
	l.mu.Lock()
	if !l.busy {
		l.busy = true
		l.mu.Unlock()
		return nil
	}
	if l.count >= maxLate {
		l.putOut()
	}
	turn := make(chan bool, 1)
	p := l.of[peer]
	if p == nil {
		p = &lateGuests{peer: peer}
		l.of[peer] = p
		l.peers = append(l.peers, p)
	}
	p.waiting = append(p.waiting, turn)
	l.count++
	l.mu.Unlock()
	select {
	case mine := <-turn:
		if mine {
			return nil
		}
		return errLate(nil)
	case <-ctx.Done():
	}
	l.mu.Lock()
	l.forget(peer, turn)
	l.mu.Unlock()
	select {
	case mine := <-turn: // the turn came at the same moment
		if mine {
			l.next()
		}
	default:
	}
	return errLate(ctx.Err())
}

// leave ends a turn. After a wrong password the next turn begins after the pause.
func (l *line) leave(right bool) {
	if right {
		l.next()
		return
	}
	time.AfterFunc(l.pause, l.next)
}

// next starts the turn of the first login of the first peer, and moves the peer to the end.
func (l *line) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.peers) == 0 {
		l.busy = false
		return
	}
	p := l.peers[0]
	turn := p.waiting[0]
	l.take(0, 0)
	if len(p.waiting) > 0 {
		l.peers = append(l.peers[1:], p)
	}
	turn <- true
}

// putOut removes a random login from the line.
func (l *line) putOut() {
	n := rand.IntN(l.count)
	for i, p := range l.peers {
		if n < len(p.waiting) {
			turn := p.waiting[n]
			l.take(i, n)
			turn <- false
			return
		}
		n -= len(p.waiting)
	}
}

// forget removes a login that stopped waiting, if it is still in the line.
func (l *line) forget(peer string, turn chan bool) {
	for i, p := range l.peers {
		if p.peer != peer {
			continue
		}
		for n, t := range p.waiting {
			if t == turn {
				l.take(i, n)
				return
			}
		}
	}
}

// take removes login n of peer i from the line.
func (l *line) take(i, n int) {
	p := l.peers[i]
	p.waiting = append(p.waiting[:n:n], p.waiting[n+1:]...)
	l.count--
	if len(p.waiting) == 0 {
		l.peers = append(l.peers[:i:i], l.peers[i+1:]...)
		delete(l.of, p.peer)
	}
}

func errLate(cause error) error {
	return &surgetank.Error{Code: surgetank.CodeBusy, RetryAfter: retryBusy, Err: cause,
		Message: "many logins from this address or for this user failed, and too many others wait to be checked; try again"}
}
