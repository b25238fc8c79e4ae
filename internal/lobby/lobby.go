// Package lobby limits a door's connections that have not logged in, or that have nothing to do.
// Such a connection is a guest, and has one of a limited number of places.
//
// When all places are taken, a newcomer gets the place of a waiting guest, whose connection is
// closed. It is a guest of the address with the most waiting guests: the one that has waited
// longest. So a client that takes places without a login loses them to newcomers, and one address
// cannot displace the guests of another address with fewer. A busy guest is never displaced; it is
// busy while its credentials are checked or its request is handled. Decision 0110 has the reasons.
package lobby

import (
	"container/heap"
	"container/list"
	"context"
	"net/netip"
	"sync"
)

// Lobby is the places of one door. Many goroutines may call all methods.
type Lobby struct {
	places, perPeer int

	mu      sync.Mutex
	peers   map[netip.Addr]*peer
	order   peerHeap // first the address whose guest is displaced next
	guests  int
	leaving int    // displaced and not gone yet: they still have a socket and a goroutine
	clock   uint64 // counts events, to order guests by their waiting time
}

// peer is the guests of one address.
type peer struct {
	addr    netip.Addr
	own     bool // a program of this machine: all of them share an address, so only the total limit applies
	guests  int
	idlers  int          // the guests in waiting
	waiting [2]list.List // of *Guest by kind of waiting, the longest first
	at      int          // index in the heap
}

// The kinds of waiting. A guest between two requests is displaced before one that is fresh, because
// it loses nothing: it can connect again.
const (
	idle  = iota // has logged in or made a request, and has nothing to do
	fresh        // has not identified itself
)

// Guest is one connection's place. A nil Guest is for a door without a lobby; all its methods are
// no-ops.
type Guest struct {
	lobby *Lobby
	peer  *peer
	cut   func()
	spot  *list.Element // in peer.waiting; nil: busy or gone
	kind  int
	since uint64
	out   bool // displaced
	left  bool
}

// New returns a lobby with a number of places in total, and for one address. An address is an IPv4
// address or an IPv6 /64. Loopback has no limit of its own.
func New(places, perPeer int) *Lobby {
	return &Lobby{places: places, perPeer: perPeer, peers: map[netip.Addr]*peer{}}
}

// network returns what counts as one address. For IPv6 it is a /64, which is what one customer has.
func network(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() && !a.IsLoopback() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// Enter gives a newcomer a place. cut closes its connection and must not block. When the guest is
// displaced, the newcomer that takes its place calls cut. made tells whether a guest was displaced
// for this one. The result is nil if all other guests are busy, or if as many displaced guests as
// there are places have not gone yet.
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

// rise takes a guest out of the line.
func (l *Lobby) rise(g *Guest) {
	if g.spot != nil {
		g.peer.waiting[g.kind].Remove(g.spot)
		g.peer.idlers--
		g.spot = nil
		heap.Fix(&l.order, g.peer.at)
	}
}

// remove removes a guest's place.
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

// Hold makes the guest busy, so that it cannot be displaced until Wait or Rest. It returns false if
// it was displaced already.
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

// Wait makes the guest fresh: it has not logged in, or its login failed.
func (g *Guest) Wait() { g.line(fresh) }

// Rest makes the guest idle: it has nothing to do.
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

// Leave frees the place: the guest has logged in and counts elsewhere, or its connection has ended.
// Call it for every guest, also for a displaced one. It may be called again.
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

// Count returns how many places are taken, and how many displaced guests have not gone yet.
func (l *Lobby) Count() (guests, leaving int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.guests, l.leaving
}

// next returns the guest of an address that is displaced first, or nil.
func (p *peer) next() *Guest {
	for kind := range p.waiting {
		if e := p.waiting[kind].Front(); e != nil {
			return e.Value.(*Guest)
		}
	}
	return nil
}

// before orders addresses by whose guest is displaced first: the one with the most waiting guests,
// then one with an idle guest, then the one whose guest has waited longest. Busy guests do not
// count, because a client that has logged in and works must not suffer for those that wait.
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

// With returns a context with a guest, for requests on its connection.
func With(ctx context.Context, g *Guest) context.Context { return context.WithValue(ctx, key{}, g) }

// Of returns the guest of the connection of a request, or nil.
func Of(ctx context.Context) *Guest {
	g, _ := ctx.Value(key{}).(*Guest)
	return g
}
