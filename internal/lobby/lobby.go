// Package lobby gives out a door's places to connections that nobody knows yet, or that have
// nothing to do.
//
// When the places are full, a newcomer is let in and a guest that waits is put out: of the address
// with the most such guests the one that has waited longest. So whoever holds places without
// logging in loses them to who comes, and one address cannot put out the guests of another that has
// fewer. A guest that is busy, because its credentials are being checked or its request was let in,
// is never put out. Decision 0110 has the reasons.
package lobby

import (
	"container/heap"
	"container/list"
	"context"
	"net/netip"
	"sync"
)

// Lobby is the places of one door. All methods may be called by many goroutines.
type Lobby struct {
	places, perPeer int

	mu      sync.Mutex
	peers   map[netip.Addr]*peer
	order   peerHeap // whose guest is to be put out next, first
	guests  int
	leaving int    // put out and not gone yet: they hold a socket and a goroutine still
	clock   uint64 // counts what happens, so that waiting has an order
}

// peer is the guests of one address.
type peer struct {
	addr    netip.Addr
	own     bool // a program of this machine: all of those share an address, so only the sum of the places binds
	guests  int
	idlers  int          // of them, those in waiting
	waiting [2]list.List // of *Guest by how they wait, the longest first
	at      int          // in the heap
}

// How a guest that may be put out waits. Who did something and is between two requests goes first:
// it comes back at no cost.
const (
	idle  = iota // was known once, and has nothing to do
	fresh        // has not shown who it is
)

// Guest is one connection's place. A nil Guest is one of a door without a lobby: it may do
// everything.
type Guest struct {
	lobby *Lobby
	peer  *peer
	cut   func()
	spot  *list.Element // in peer.waiting; nil: busy, or gone
	kind  int
	since uint64
	out   bool // put out
	left  bool
}

// New makes a lobby with so many places together, and for one address (an IPv4 address, or an IPv6
// /64; loopback excepted).
func New(places, perPeer int) *Lobby {
	return &Lobby{places: places, perPeer: perPeer, peers: map[netip.Addr]*peer{}}
}

// network is what counts as one address: of IPv6 a /64, which is what one customer has.
func network(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() && !a.IsLoopback() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// Enter gives a newcomer a place. cut closes its connection, and must not wait; it is called when
// the guest is put out, by whoever comes in its stead. made says that somebody was. There is no
// place, and no guest, when all others are busy or as many as there are places are still on their
// way out.
func (l *Lobby) Enter(a netip.Addr, cut func()) (g *Guest, made bool) {
	g, out := l.enter(network(a), cut)
	if out != nil {
		out.cut()
	}
	return g, out != nil
}

func (l *Lobby) enter(a netip.Addr, cut func()) (g, out *Guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[a]
	if p == nil {
		p = &peer{addr: a, own: a.IsLoopback()}
		l.peers[a] = p
		heap.Push(&l.order, p)
	}
	g = &Guest{lobby: l, peer: p, cut: cut}
	l.guests++
	p.guests++
	l.wait(g, fresh)
	switch {
	case !p.own && p.guests > l.perPeer:
		out = p.next()
	case l.guests > l.places:
		out = l.order[0].next()
	}
	switch {
	case out == nil:
		return g, nil
	case out == g || l.leaving >= l.places:
		l.remove(g)
		g.left = true
		return nil, nil
	}
	l.remove(out)
	out.out = true
	l.leaving++
	return g, out
}

// wait puts a guest at the end of its address's line.
func (l *Lobby) wait(g *Guest, kind int) {
	l.clock++
	g.kind, g.since = kind, l.clock
	g.spot = g.peer.waiting[kind].PushBack(g)
	g.peer.idlers++
	heap.Fix(&l.order, g.peer.at)
}

// rise takes a guest out of line.
func (l *Lobby) rise(g *Guest) {
	if g.spot != nil {
		g.peer.waiting[g.kind].Remove(g.spot)
		g.peer.idlers--
		g.spot = nil
		heap.Fix(&l.order, g.peer.at)
	}
}

// remove takes a guest's place away.
func (l *Lobby) remove(g *Guest) {
	l.rise(g)
	l.guests--
	if g.peer.guests--; g.peer.guests == 0 {
		heap.Remove(&l.order, g.peer.at)
		delete(l.peers, g.peer.addr)
	} else {
		heap.Fix(&l.order, g.peer.at)
	}
}

// Hold keeps the guest from being put out until Wait or Rest. false: it was put out already.
func (g *Guest) Hold() bool {
	if g == nil {
		return true
	}
	g.lobby.mu.Lock()
	defer g.lobby.mu.Unlock()
	if g.out || g.left {
		return !g.out
	}
	g.lobby.rise(g)
	return true
}

// Wait says that nobody knows the guest: it asks, or was refused.
func (g *Guest) Wait() { g.line(fresh) }

// Rest says that the guest has nothing to do.
func (g *Guest) Rest() { g.line(idle) }

func (g *Guest) line(kind int) {
	if g == nil {
		return
	}
	g.lobby.mu.Lock()
	defer g.lobby.mu.Unlock()
	if g.out || g.left || g.spot != nil && g.kind == kind {
		return
	}
	g.lobby.rise(g)
	g.lobby.wait(g, kind)
}

// Leave gives the place back: the guest is known and counts elsewhere, or its connection has ended.
// It must be called for every guest, also one that was put out, and may be called again.
func (g *Guest) Leave() {
	if g == nil {
		return
	}
	g.lobby.mu.Lock()
	defer g.lobby.mu.Unlock()
	switch {
	case g.left:
		return
	case g.out:
		g.lobby.leaving--
	default:
		g.lobby.remove(g)
	}
	g.left = true
}

// Count gives how many places are taken, and how many guests are on their way out.
func (l *Lobby) Count() (guests, leaving int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.guests, l.leaving
}

// next is the guest of an address that is to be put out before the others, or nil.
func (p *peer) next() *Guest {
	for kind := range p.waiting {
		if e := p.waiting[kind].Front(); e != nil {
			return e.Value.(*Guest)
		}
	}
	return nil
}

// before orders addresses by whose guest is put out first: who has the most that wait; one with an
// idle guest; whose guest has waited longest. Busy guests do not count: who is known and works must
// not stand back for who waits.
func (p *peer) before(o *peer) bool {
	a, b := p.next(), o.next()
	switch {
	case p.idlers != o.idlers:
		return p.idlers > o.idlers
	case a == nil:
		return false
	case a.kind != b.kind:
		return a.kind == idle
	}
	return a.since < b.since
}

// peerHeap is a heap of addresses.
type peerHeap []*peer

func (h peerHeap) Len() int           { return len(h) }
func (h peerHeap) Less(i, j int) bool { return h[i].before(h[j]) }
func (h peerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].at, h[j].at = i, j }
func (h *peerHeap) Push(x any)        { p := x.(*peer); p.at = len(*h); *h = append(*h, p) }
func (h *peerHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	*h = old[:len(old)-1]
	return p
}

type key struct{}

// With gives a context that carries a guest, for requests of its connection.
func With(ctx context.Context, g *Guest) context.Context { return context.WithValue(ctx, key{}, g) }

// Of gives the guest whose connection a request came on, or nil.
func Of(ctx context.Context) *Guest {
	g, _ := ctx.Value(key{}).(*Guest)
	return g
}
