// Package lobby limits a door's connections that have not logged in, or that have nothing to do. In
// this package such a connection is a guest, and uses one of a limited number of places.
//
// If all places are used, a new connection displaces a waiting guest: that guest's connection is
// closed. The displaced guest is the one that has waited longest at the address with the most
// waiting guests. So a client that opens many connections without a login loses them to new
// connections. An address cannot displace the guests of another address with fewer guests. A guest
// is busy while its credentials are checked or its request is handled. A busy guest is never
// displaced. Decision 0110 has the reasons.
package lobby

import (
	"container/heap"
	"container/list"
	"context"
	"net/netip"
	"sync"
)

// Lobby manages the places of one door. Any goroutine may call its methods.
type Lobby struct {
	places, perPeer int

	mu      sync.Mutex
	peers   map[netip.Addr]*peer
	order   peerHeap // the first element is the address whose guest is displaced next
	guests  int
	leaving int    // displaced guests that have not left yet and still have a socket and a goroutine
	clock   uint64 // counts events, to order guests by their waiting time
}

// peer contains the guests of one address.
type peer struct {
	addr    netip.Addr
	own     bool // loopback, which all programs of this computer share: only the total limit applies
	guests  int
	idlers  int          // number of guests in waiting
	waiting [2]list.List // the *Guest values by kind of waiting, the longest-waiting first
	at      int          // index of the peer in Lobby.order
}

// The kinds of waiting. An idle guest is displaced before a fresh one, because it loses nothing: it
// can connect again.
const (
	idle  = iota // the guest has logged in or made a request, and now has no request
	fresh        // the guest has not logged in
)

// Guest is one connection's place. In a door without a lobby it is nil. All methods of a nil Guest
// do nothing.
type Guest struct {
	lobby *Lobby
	peer  *peer
	cut   func()
	spot  *list.Element // the element in peer.waiting; nil: the guest is busy or has left
	kind  int
	since uint64
	out   bool // the guest was displaced
	left  bool
}

// New returns a lobby with places for all addresses together, and at most perPeer places for one
// address. An address is an IPv4 address or an IPv6 /64. Loopback has no limit of its own.
func New(places, perPeer int) *Lobby {
	return &Lobby{places: places, perPeer: perPeer, peers: map[netip.Addr]*peer{}}
}

// network returns the address under which a client is counted. For IPv6 it is the /64, because one
// customer usually has a whole /64.
func network(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() && !a.IsLoopback() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// Enter assigns a place to a new connection. cut closes the connection and must not block. It is
// called when the guest is displaced, by the goroutine of the connection that displaces it. made
// reports whether another guest was displaced for this one. g is nil if there is no free place and
// all other guests are busy. It is also nil if the displaced guests that have not left yet are as
// many as the places.
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

// wait makes a guest the last waiting guest of its address.
func (l *Lobby) wait(g *Guest, kind int) {
	l.clock++
	g.kind, g.since = kind, l.clock
	g.spot = g.peer.waiting[kind].PushBack(g)
	g.peer.idlers++
	heap.Fix(&l.order, g.peer.at)
}

// rise removes a guest from the waiting guests of its address.
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
// the guest is already displaced.
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

// Rest makes the guest idle: it has no request.
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

// Leave frees the place. Call it for every guest, even a displaced one, when its connection has
// logged in (and other limits apply) or has ended. Further calls have no effect.
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

// Count returns the number of used places, and the number of displaced guests that have not left
// yet.
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

// before orders addresses by whose guest is displaced first. First comes the address with the most
// waiting guests, then an address with an idle guest, then the address whose guest has waited
// longest. Busy guests are not counted, because a client that works must not be displaced for
// clients that wait.
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
