package queue

import (
	"testing"
	"time"

	"github.com/surgetank/surgetank"
)

// TestAcceptRate: a queue with accept.rate refuses messages above the rate, names the limit, and
// says when to try again. A publish to two queues of which one refuses is stored in the other, and
// other queues are not slowed.
func TestAcceptRate(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	r.step(&Declare{Name: "slow", Config: surgetank.QueueConfig{Accept: surgetank.AcceptConfig{Rate: 10, Burst: 2}}}, &Declare{Name: "free"})
	publish := func(queues ...string) error {
		p := surgetank.Publishing{Queues: queues}
		c := &Publish{Msgs: []Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)}
		r.step(c)
		return c.Results[0].Err
	}
	for range 2 {
		if err := publish("slow"); err != nil {
			t.Fatal(err)
		}
	}
	err, is := publish("slow", "free").(*surgetank.Error)
	if !is || err.Code != surgetank.CodeBusy || err.Limit != surgetank.LimitAcceptRate || err.RetryAfter != 100*time.Millisecond {
		t.Fatalf("%+v", err)
	}
	for range 100 {
		if err := publish("free"); err != nil {
			t.Fatal(err)
		}
	}
	r.now += int64(err.RetryAfter)
	if err := publish("slow"); err != nil {
		t.Fatalf("after RetryAfter: %v", err)
	}
	info := &Info{}
	r.step(info)
	slow, free := info.Infos[0], info.Infos[1]
	if want := (surgetank.Refusal{Limit: surgetank.LimitAcceptRate, Count: 1, Last: time.Unix(0, rigStart).UTC()}); len(slow.Refusals) != 1 || slow.Refusals[0] != want || slow.Refused != 1 {
		t.Errorf("refusals %v, refused %d", slow.Refusals, slow.Refused)
	}
	if free.Ready != 101 || len(free.Refusals) != 0 {
		t.Errorf("%d messages, refusals %v", free.Ready, free.Refusals)
	}
}
