//go:build linux

package main

import (
	"reflect"
	"testing"

	"github.com/surgetank/surgetank/test/kit/namespace"
)

// TestPlans: a seed must always draw the same plan, and every action must occur.
func TestPlans(t *testing.T) {
	t.Setenv(namespace.Mark, "1") // plans then also contain actions with small disks
	rounds := map[string]int{}
	for seed := range uint64(3000) {
		p, again := draw(seed, ""), draw(seed, "")
		if p.String() != again.String() || !reflect.DeepEqual(p.names(), again.names()) {
			t.Fatalf("seed %d: %s, and then %s", seed, p, again)
		}
		sides := map[side]int{}
		for _, a := range p.actions {
			rounds[a.name]++
			sides[a.side]++
			if a.on != "" && a.on != p.kind || a.with != nil && !a.with(p) {
				t.Errorf("seed %d: %s in %s", seed, a.name, p)
			}
		}
		if sides[both] > 0 && sides[target]+sides[directory] > 0 || sides[both] > 1 {
			t.Errorf("seed %d: a copy runs while another action puts a side back: %s", seed, p)
		}
	}
	for _, a := range actions {
		if rounds[a.name] < 30 {
			t.Errorf("%s is in %d of 3000 rounds", a.name, rounds[a.name])
		}
	}
	if list := plans(1, 20, "failover"); len(list) != 20 {
		t.Errorf("%d rounds with a failover", len(list))
	}
}
