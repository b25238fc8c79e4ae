package lobby

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// house is a lobby whose guests have names. It records the displaced guests.
type house struct {
	t *testing.T
	*Lobby
	guests map[string]*Guest
	out    map[string]bool
	linger bool // a displaced guest does not leave at once
}

func newHouse(t *testing.T, places, perPeer int) *house {
	return &house{t: t, Lobby: New(places, perPeer), guests: map[string]*Guest{}, out: map[string]bool{}}
}

// enter calls Enter for a guest with a name. It returns false if there was no place.
func (h *house) enter(name, addr string) bool {
	g, _ := h.Enter(netip.MustParseAddr(addr), func() {
		if h.out[name] = true; !h.linger {
			h.guests[name].Leave()
		}
	})
	h.guests[name] = g
	return g != nil
}

func (h *house) want(out ...string) {
	h.t.Helper()
	want := fmt.Sprint(out)
	var got []string
	for _, name := range out {
		if h.out[name] {
			got = append(got, name)
		}
	}
	if len(h.out) != len(out) || fmt.Sprint(got) != want {
		h.t.Fatalf("displaced guests are %v, want %v", h.out, out)
	}
}

func TestWhoIsPutOut(t *testing.T) {
	h := newHouse(t, 4, 3)
	h.enter("a1", "10.0.0.1")
	h.enter("b1", "10.0.0.2")
	h.enter("a2", "10.0.0.1")
	h.enter("a3", "10.0.0.1")
	h.want()
	h.enter("c1", "10.0.0.3") // displaces the longest-waiting guest of the address with the most guests
	h.want("a1")
	h.enter("a4", "10.0.0.1")
	h.want("a1", "a2")
	h.guests["b1"].Hold()     // now c1, a3, a4 wait
	h.enter("d1", "10.0.0.4") // 10.0.0.1 (guests a) has two waiting guests
	h.want("a1", "a2", "a3")
	h.enter("e1", "10.0.0.5") // each address has one waiting guest: the longest-waiting is displaced
	h.want("a1", "a2", "a3", "c1")
	h.guests["b1"].Wait() // now b1 is the guest that has waited shortest
	h.guests["e1"].Hold()
	h.guests["e1"].Rest() // an idle guest is displaced first
	h.enter("f1", "10.0.0.6")
	h.want("a1", "a2", "a3", "c1", "e1")
	h.enter("g1", "10.0.0.7")
	h.want("a1", "a2", "a3", "c1", "e1", "a4")
	if h.guests["a2"].Hold() || !h.guests["f1"].Hold() {
		t.Error("Hold of a displaced guest returned true, or Hold of another guest returned false")
	}
}

// TestBusyGuestsStay: a busy guest is never displaced. If all guests are busy, a new connection is
// refused.
func TestBusyGuestsStay(t *testing.T) {
	h := newHouse(t, 2, 2)
	h.linger = true
	h.enter("a", "10.0.0.1")
	h.enter("b", "10.0.0.2")
	h.guests["a"].Hold()
	h.guests["b"].Hold()
	if h.enter("c", "10.0.0.3") {
		t.Error("a guest got a place although all places are used by busy guests")
	}
	h.guests["c"].Leave() // c got no place, so its Guest is nil
	h.guests["b"].Wait()
	if !h.enter("d", "10.0.0.1") { // a is busy, so it is not counted for its address
		t.Error("a guest was refused although a waiting guest could be displaced")
	}
	h.want("b")
	if n, leaving := h.Count(); n != 2 || leaving != 1 {
		t.Errorf("%d guests, %d leaving", n, leaving)
	}
}

// TestAddresses: an address has its own limit, loopback has none, and an IPv6 /64 is one address.
func TestAddresses(t *testing.T) {
	h := newHouse(t, 100, 2)
	for i := range 10 {
		h.enter(fmt.Sprint("own", i), "127.0.0.1")
		h.enter(fmt.Sprint("own6", i), "::1")
	}
	h.want()
	h.enter("v6a", "2001:db8::1")
	h.enter("v6b", "2001:db8::2")
	h.enter("v6c", "2001:db8:0:1::3")
	h.want()
	h.enter("v6d", "2001:db8::3")
	h.want("v6a")
	h.enter("v4a", "10.0.0.1")
	h.enter("v4b", "::ffff:10.0.0.1")
	h.enter("v4c", "10.0.0.1")
	h.want("v6a", "v4a")
}

// TestWhoLeavesIsBounded: a displaced guest has a socket until it leaves, so there are never more
// displaced guests than places.
func TestWhoLeavesIsBounded(t *testing.T) {
	h := newHouse(t, 3, 10)
	h.linger = true
	for i := range 20 {
		h.enter(fmt.Sprint(i), "127.0.0.1")
	}
	if n, leaving := h.Count(); n != 3 || leaving != 3 || h.guests["6"] != nil || h.out["3"] {
		t.Fatalf("%d guests, %d leaving", n, leaving)
	}
	h.guests["0"].Leave()
	h.guests["0"].Leave()
	if !h.enter("next", "127.0.0.1") || h.enter("one too many", "127.0.0.1") {
		t.Error("a place on the way out was not given back once")
	}
}

// TestAtRandom calls random methods, and compares the lobby's counts with its guests after each
// call.
func TestAtRandom(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l := New(20, 5)
		var all []*Guest
		for range 3000 {
			if rng.IntN(3) == 0 {
				if g, _ := l.Enter(netip.AddrFrom4([4]byte{byte(10 + rng.IntN(2)*117), 0, 0, byte(rng.IntN(8))}), func() {}); g != nil {
					all = append(all, g)
				}
			} else if len(all) > 0 {
				i := rng.IntN(len(all))
				switch g := all[i]; rng.IntN(5) {
				case 0:
					g.Hold()
				case 1:
					g.Wait()
				case 2:
					g.Rest()
				case 3:
					g.Leave()
					all = append(all[:i], all[i+1:]...)
				}
			}
			guests, leaving, per := 0, 0, map[*peer]int{}
			for _, g := range all {
				if g.out {
					leaving++
				} else {
					guests++
					per[g.peer]++
				}
			}
			if n, out := l.Count(); n != guests || out != leaving || n > 20 || out > 20 || len(l.peers) != len(per) || len(l.order) != len(per) {
				t.Fatalf("seed %d: %d guests and %d leaving of %d addresses, counted %d, %d, %d", seed, n, out, len(l.peers), guests, leaving, len(per))
			}
			for p, n := range per {
				if p.guests != n || !p.own && n > 5 || p.idlers != p.waiting[0].Len()+p.waiting[1].Len() || l.order[p.at] != p {
					t.Fatalf("seed %d: %v has %d guests, of whom %d wait; counted %d", seed, p.addr, p.guests, p.idlers, n)
				}
			}
			for i := 1; i < len(l.order); i++ {
				if l.order[i].before(l.order[(i-1)/2]) {
					t.Fatalf("seed %d: the heap is out of order", seed)
				}
			}
		}
	}
}

func TestContext(t *testing.T) {
	h := newHouse(t, 1, 1)
	h.enter("a", "10.0.0.1")
	if Of(With(context.Background(), h.guests["a"])) != h.guests["a"] || Of(context.Background()) != nil {
		t.Error("a context carries another guest")
	}
	if g := Of(context.Background()); !g.Hold() {
		t.Error("without a lobby somebody was put out")
	}
}

// BenchmarkStorm measures Enter when all places are used, each by another address.
func BenchmarkStorm(b *testing.B) {
	l := New(10_000, 256)
	for i := 0; b.Loop(); i++ {
		l.Enter(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), func() {})
		if i >= 10_000 {
			l.mu.Lock()
			l.leaving = 0
			l.mu.Unlock()
		}
	}
}
