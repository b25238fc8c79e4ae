package door_test

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/door"
)

// public has only the methods of surgetank.Broker, as a client of a server.
type public struct{ surgetank.Broker }

// Of finds the inner part of an embedded broker. Other values are CodeInvalid, and none panics.
func TestOf(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	d, err := door.Of(b)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := door.Of(d); err != nil || again != d {
		t.Errorf("the inner part itself: %v, %v", again, err)
	}
	for name, bad := range map[string]surgetank.Broker{
		"no broker":               nil,
		"a nil embedded.Broker":   (*embedded.Broker)(nil),
		"a zero embedded.Broker":  &embedded.Broker{},
		"a broker that wraps one": public{b},
	} {
		if d, err := door.Of(bad); d != nil || surgetank.CodeOf(err) != surgetank.CodeInvalid {
			t.Errorf("%s: %v, %v, want an invalid broker", name, d, err)
		}
	}
}

// A copy of a message has the same opaque part, so a message that a program passes on keeps it.
func TestOpaqueIsCopied(t *testing.T) {
	var m surgetank.Message
	*door.Opaque(&m) = []byte("a door's")
	d := surgetank.Delivery{Message: m}
	again := d.Message
	if got := string(*door.Opaque(&again)); got != "a door's" {
		t.Errorf("the copy has %q", got)
	}
	if n := testing.AllocsPerRun(100, func() {
		var local surgetank.Message
		*door.Opaque(&local) = nil
	}); n != 0 {
		t.Errorf("%v allocations, want a message on the stack", n)
	}
}
