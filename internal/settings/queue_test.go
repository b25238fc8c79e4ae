package settings_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

// If a server writes a queue as JSON and a client reads the JSON, every field keeps its value.
func TestAQueueSurvivesItsShape(t *testing.T) {
	own := settings.WithDefaults(surgetank.QueueConfig{TTL: time.Hour})
	effective := own
	effective.MaxMessages = 10
	effective.DeadLetter = fullname.Of("v", "dead")
	in := surgetank.QueueInfo{
		Name: fullname.Of("v", "orders"), ID: 7, Config: effective, Own: &own, Policy: "small", Created: time.Unix(1_700_000_000, 5).UTC(),
		Ready: 1, Blocked: 2, Delayed: 3, Leased: 4, Bytes: 5, OldestAge: 90 * time.Second, Groups: 6, Consumers: 8, Waiting: "no consumer is attached",
		Published: 10, Duplicates: 11, Refused: 12, Delivered: 13, Acked: 14, Nacked: 15, Expired: 16, DeadLettered: 17, Dropped: 18, LeasesLost: 19, Circled: 20, Coalesced: 21,
		In: surgetank.Rates{Minute: 1.5, TenMinutes: 0.25}, Out: surgetank.Rates{Minute: 3},
	}
	*door.QueueFloor(&in) = 9
	text, err := json.Marshal(settings.Show(&in))
	if err != nil {
		t.Fatal(err)
	}
	var shape settings.Queue
	if err := json.Unmarshal(text, &shape); err != nil {
		t.Fatal(err)
	}
	out, err := shape.Info()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("it came back otherwise:\n%+v\nwant %+v\n%s", out, in, text)
	}
	shape.OldestAge = "old"
	if _, err := shape.Info(); surgetank.CodeOf(err) != surgetank.CodeInternal {
		t.Errorf("an age that is no duration: %v", err)
	}
}

// If a server writes an explanation as JSON and a client reads the JSON, every field keeps its
// value.
func TestAnExplanationSurvivesItsShape(t *testing.T) {
	at := time.Unix(1_700_000_000, 5).UTC()
	id := surgetank.MessageID{Queue: 1, Seq: 2}
	in := surgetank.Explanation{Verdict: "behind", Text: "x", Until: at, ID: id, Group: "g", Attempt: 3, Failure: "f", NextTry: at, Ahead: 4, Turn: 5,
		Behind: &surgetank.Explanation{Verdict: "back_off", Text: "y", ID: id},
		Leases: []surgetank.LeaseHolder{{ID: id, Consumer: 6, Name: "w", Since: at, Until: at}, {ID: id, Since: at}},
		Drain:  surgetank.Drain{Backlog: 7, Low: time.Second, High: time.Hour, By: "rates", Text: "z"},
		Groups: []surgetank.GroupFigures{{Group: "g", Waiting: 8, InFlight: 9, Rate: 1.5, Age: time.Minute}},
	}
	for v, i := reflect.ValueOf(in), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the test leaves out %s", v.Type().Field(i).Name)
		}
	}
	text, err := json.Marshal(settings.ShowWhy(&in))
	if err != nil {
		t.Fatal(err)
	}
	var shape settings.Why
	if err := json.Unmarshal(text, &shape); err != nil {
		t.Fatal(err)
	}
	if out, err := shape.Explanation(); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("it came back otherwise: %v\n%+v\nwant %+v\n%s", err, out, in, text)
	}
	shape.ID = "one"
	if _, err := shape.Explanation(); surgetank.CodeOf(err) != surgetank.CodeInternal {
		t.Errorf("an id that is none: %v", err)
	}
}
