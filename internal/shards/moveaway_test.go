package shards_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/memlog"
)

// TestMoveWithAShardAway crashes the process at every step of a move. At the next start, one of the
// two shards cannot be opened. The queue is then in its old shard or unavailable, and it is
// complete when the shard is back.
func TestMoveWithAShardAway(t *testing.T) {
	all := stores(3)
	var images []image
	recording := false
	b := openOn(t, all, func(point string) {
		if !recording {
			return
		}
		m := image{point: point}
		for _, s := range all {
			c := s.Copy()
			c.Crash(0)
			m.stores = append(m.stores, c)
		}
		images = append(images, m)
	})
	token := fill(t, b, 2)
	wantDead := show(t, b, "q.dead")
	recording = true
	moveTo(t, b, "q", 3)
	recording = false
	for i, m := range images {
		for away := 1; away <= 2; away++ {
			t.Run(fmt.Sprintf("%d_%s_without_%d", i, m.point, away+1), func(t *testing.T) {
				t.Parallel()
				var copies []*memlog.Store
				for _, s := range m.stores {
					copies = append(copies, s.Copy())
				}
				back := make(chan struct{})
				f := openAway(t, copies, away, back)
				defer f.Close()
				switch info, err := f.Queue(t.Context(), "q"); {
				case err == nil && info.Shard == away+1:
					t.Errorf("the queue is in shard %d, which is away", away+1)
				case err == nil, surgetank.CodeOf(err) == surgetank.CodeUnavailable:
				default:
					t.Error(err)
				}
				if _, _, err := f.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{Shard: 1}, surgetank.DeclareNew); err == nil {
					t.Error("the queue was created once more")
				}
				close(back)
				judgeMoved(t, f, wantDead, token)
			})
		}
	}
}

// judgeMoved waits until all shards are open and the move is over. The queue that fill has made is
// then complete.
func judgeMoved(t *testing.T, f *failing, wantDead string, token int64) {
	t.Helper()
	eventually(t, "the queue can be changed", func() bool {
		infos, err := f.Queues(t.Context())
		return err == nil && len(infos) == 2 && f.PauseQueue(t.Context(), "q", time.Hour) == nil
	})
	same(t, "q.dead", show(t, f.Broker, "q.dead"), wantDead)
	repeats(t, f.Broker)
	drainAll(t, f.Broker, token)
}

// TestMoveWhileAShardFails lets the log of one of the two shards fail at every report of progress.
// The log is opened again by itself. The move then has ended or was undone, and the queue is
// complete.
func TestMoveWhileAShardFails(t *testing.T) {
	for fails := range 2 {
		for at := range 12 {
			t.Run(fmt.Sprintf("shard %d at report %d", fails+2, at), func(t *testing.T) {
				t.Parallel()
				f := openFailing(t, 3)
				token := fill(t, f.Broker, 2)
				wantDead := show(t, f.Broker, "q.dead")
				n := 0
				_, err := f.MoveQueue(t.Context(), "q", surgetank.MoveOptions{Shard: 3, Progress: func(surgetank.MoveInfo) {
					if n++; n == at+1 {
						f.stores[1+fails].Fail(errors.New("injected"))
					}
				}})
				if code := surgetank.CodeOf(err); code != "" && code != surgetank.CodeUnavailable && code != surgetank.CodeUncertain {
					t.Errorf("the move ended with %v", err)
				}
				judgeMoved(t, f, wantDead, token)
			})
		}
	}
}
