package metacache_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/metacache"
)

const space = "numbers"

func number(_ string, b []byte) (int, error) { return strconv.Atoi(string(b)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, s door.Metadata, apply func([]metacache.Change[int])) *metacache.Cache[int] {
	t.Helper()
	c, err := metacache.Open(t.Context(), s, metacache.Options[int]{Namespace: space, Decode: number, Apply: apply})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func shown(c *metacache.Cache[int]) string {
	all := c.All()
	var list []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if v := all[name]; v.Err != nil {
			list = append(list, name+"=bad")
		} else {
			list = append(list, fmt.Sprintf("%s=%d", name, v.V))
		}
	}
	return strings.Join(list, " ")
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOwnChange: a writer's change is in its cache, and Apply has seen it, when the call returns.
// The value of another writer arrives without a call.
func TestOwnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s doortest.MetaStore
		must(t, s.SetMeta(t.Context(), space, "a", []byte("1")))
		must(t, s.SetMeta(t.Context(), "other", "b", []byte("1")))
		var seen []string
		c := open(t, &s, func(list []metacache.Change[int]) {
			for _, x := range list {
				seen = append(seen, fmt.Sprint(x.Name, x.V, x.Removed))
			}
		})
		want(t, shown(c), "a=1")
		v, err := c.Set(t.Context(), "b", []byte("2"), 0)
		must(t, err)
		want(t, shown(c), "a=1 b=2")
		want(t, fmt.Sprint(seen), "[a1 false b2 false]")
		if got, ok := c.Get("b"); !ok || got.Version != v || c.Version() != v {
			t.Errorf("version %d, %d and %d", v, got.Version, c.Version())
		}
		_, err = c.Set(t.Context(), "missing", nil, 0)
		must(t, err)
		_, err = c.Set(t.Context(), "a", nil, door.AnyVersion)
		must(t, err)
		want(t, shown(c), "b=2")

		must(t, s.SetMeta(t.Context(), space, "c", []byte("3")))
		synctest.Wait()
		want(t, shown(c), "b=2 c=3")
		want(t, fmt.Sprint(seen[2:]), "[a1 true c3 false]")
		c.Close()
		must(t, s.SetMeta(t.Context(), space, "c", []byte("4")))
		synctest.Wait()
		want(t, shown(c), "b=2 c=3")
	})
}

// TestConcurrentChanges: writers with their own caches change the same values. Each change depends
// on the value before, and none is lost.
func TestConcurrentChanges(t *testing.T) {
	var s doortest.MetaStore
	const writers, changes = 8, 50
	caches := make([]*metacache.Cache[int], writers)
	var wg sync.WaitGroup
	for i := range caches {
		last := map[string]uint64{}
		caches[i] = open(t, &s, func(list []metacache.Change[int]) {
			for _, x := range list {
				if x.Version <= last[x.Name] {
					t.Errorf("version %d of %s after %d", x.Version, x.Name, last[x.Name])
				}
				last[x.Name] = x.Version
			}
		})
		wg.Go(func() {
			for n := range changes {
				err := caches[i].Update(t.Context(), fmt.Sprint(n%3), func(now metacache.Value[int], _ bool) ([]byte, error) {
					return fmt.Append(nil, now.V+1), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range caches {
		c.Refresh()
		want(t, shown(c), "0=136 1=136 2=128")
	}
}

// TestBadValue: a value that cannot be decoded is an error of its own, and the others are there.
func TestBadValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s doortest.MetaStore
		ctx := t.Context()
		must(t, s.SetMeta(ctx, space, "bad", []byte("x")))
		must(t, s.SetMeta(ctx, space, "good", []byte("1")))
		c := open(t, &s, nil)
		want(t, shown(c), "bad=bad good=1")
		must(t, s.SetMeta(ctx, space, "good", []byte("y")))
		must(t, s.SetMeta(ctx, space, "new", []byte("2")))
		synctest.Wait()
		want(t, shown(c), "bad=bad good=bad new=2")
		if _, ok := c.Get("good"); ok {
			t.Error("a bad value was returned")
		}
		must(t, c.Update(ctx, "good", func(now metacache.Value[int], exists bool) ([]byte, error) {
			if exists || now.Err == nil {
				t.Errorf("%+v", now)
			}
			return []byte("3"), nil
		}))
		want(t, shown(c), "bad=bad good=3 new=2")
	})
}

// TestOpenedAgain: a broker that was opened again passes all values once more. The cache finds the
// changes.
func TestOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(doortest.MetaStore)
		ctx := t.Context()
		for _, name := range []string{"same", "changed", "gone"} {
			must(t, s.SetMeta(ctx, space, name, []byte("1")))
		}
		var seen []string
		behind := &swap{Metadata: s}
		c := open(t, behind, func(list []metacache.Change[int]) {
			for _, x := range list {
				seen = append(seen, fmt.Sprint(x.Name, x.V, x.Removed))
			}
		})
		seen = nil
		next := s.Clone()
		must(t, next.SetMeta(ctx, space, "changed", []byte("2")))
		must(t, next.SetMeta(ctx, space, "gone", nil))
		must(t, next.SetMeta(ctx, space, "new", []byte("3")))
		_, err := next.WatchMeta(ctx, space, behind.feed)
		must(t, err)
		synctest.Wait()
		want(t, shown(c), "changed=2 new=3 same=1")
		want(t, fmt.Sprint(seen), "[changed2 false new3 false gone1 true]")
	})
}

// swap shows the feed of a watch, as a supervisor knows it.
type swap struct {
	door.Metadata
	feed *door.MetaFeed
}

func (s *swap) WatchMeta(ctx context.Context, ns string, f *door.MetaFeed) (func(), error) {
	s.feed = f
	return s.Metadata.WatchMeta(ctx, ns, f)
}

// TestErrors: errors of the broker and of the caller reach the caller and change nothing.
func TestErrors(t *testing.T) {
	var s doortest.MetaStore
	ctx := t.Context()
	c := open(t, &s, nil)
	broken := errors.New("no disk")
	s.Fail = func(string, string) error { return broken }
	if _, err := c.Set(ctx, "a", []byte("1"), 0); err != broken {
		t.Error(err)
	}
	mine := errors.New("no")
	if err := c.Update(ctx, "a", func(metacache.Value[int], bool) ([]byte, error) { return nil, mine }); err != mine {
		t.Error(err)
	}
	must(t, c.Update(ctx, "a", func(metacache.Value[int], bool) ([]byte, error) { return nil, metacache.ErrSame }))
	s.Fail = func(string, string) error { return surgetank.Errorf(surgetank.CodeExists, "always too late") }
	if err := c.Update(ctx, "a", func(metacache.Value[int], bool) ([]byte, error) { return []byte("1"), nil }); surgetank.CodeOf(err) != surgetank.CodeBusy {
		t.Error(err)
	}
	want(t, shown(c), "")
}
