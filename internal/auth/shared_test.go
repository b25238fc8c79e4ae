package auth

import (
	"fmt"
	"sync"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/door/doortest"
)

// TestTwoStores: two Stores over one broker see each other's changes, and concurrent changes of one
// record lose nothing.
func TestTwoStores(t *testing.T) {
	b, err := embedded.Memory(embedded.Options{})
	must(t, err)
	defer func() { must(t, b.Close()) }()
	ctx := t.Context()
	var stores [2]*Store
	var wg sync.WaitGroup
	for i := range stores { // the first records are made by both at once
		wg.Go(func() {
			s, err := Open(ctx, doortest.Of(t, b))
			if err != nil {
				t.Error(err)
				return
			}
			stores[i] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	one, two := stores[0], stores[1]
	defer one.Close()
	defer two.Close()
	see := func() {
		one.records.Refresh()
		two.records.Refresh()
	}
	see()
	for _, s := range stores {
		if list := s.Permissions("guest", "/"); len(list) != 1 || s.state.Load().vhosts["/"].ID != one.state.Load().vhosts["/"].ID {
			t.Fatalf("after two first openings: %v", list)
		}
	}

	changed := two.Changed()
	_, err = one.PutUser(ctx, "ann", UserSpec{Password: ptr(Secret("x"))})
	must(t, err)
	<-changed // without a call of two
	ann := &User{Name: "ann", id: two.state.Load().users["ann"].ID}

	// Each Store grants rights in its own virtual hosts: every grant changes ann's record.
	const each = 20
	for i, s := range stores {
		wg.Go(func() {
			for n := range each {
				vhost := fmt.Sprintf("v%d-%d", i, n)
				if _, err := s.PutVhost(ctx, vhost, ""); err != nil {
					t.Error(err)
				}
				if err := s.PutPermission(ctx, "ann", vhost, AllPermissions); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	see()
	for _, s := range stores {
		if n := len(s.Permissions("ann", "")); n != 2*each {
			t.Errorf("%d of %d permissions are there", n, 2*each)
		}
		must(t, s.Authorize(ann, "v1-3", Read, "q"))
	}
	must(t, two.DeleteUser(ctx, "ann"))
	one.records.Refresh()
	wantCode(t, one.Authorize(ann, "v1-3", Read, "q"), surgetank.CodeDenied)
	wantCode(t, one.DeleteUser(ctx, "ann"), surgetank.CodeNotFound)

	// Both delete one virtual host. It is gone for both.
	for _, s := range stores {
		wg.Go(func() {
			if err := s.DeleteVhost(ctx, "v0-0"); err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	see()
	if one.VhostExists("v0-0") || two.VhostExists("v0-0") {
		t.Error("a deleted virtual host is there")
	}
}
