package msgopt

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Every field of a message except the body is an option with its own name. An option that is
// written as JSON and read back has the same value.
func TestEveryFieldIsAnOption(t *testing.T) {
	var m surgetank.Message
	at := map[any]string{}
	for i := range Table {
		at[Table[i].At(&m)] = Table[i].Name
	}
	v := reflect.ValueOf(&m).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name == "Body" {
			continue
		}
		field := v.Field(i).Addr()
		if name == "opaque" {
			field = reflect.ValueOf(door.Opaque(&m))
		}
		if at[field.Interface()] == "" {
			t.Errorf("Message.%s has no row in Table", name)
		}
		switch p := field.Interface().(type) {
		case *string:
			*p = "the " + name
		case *uint8:
			*p = 7
		case *time.Duration:
			*p = time.Duration(i) * time.Minute
		case *[]byte:
			*p = []byte{0, 1, 255}
		case *[]surgetank.Header:
			*p = []surgetank.Header{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}
		default:
			t.Errorf("Message.%s has a type that AppendMembers and this test do not know", name)
		}
	}
	text := func(b []byte, s string) []byte {
		q, _ := json.Marshal(s)
		return append(b, q...)
	}
	written := append(AppendMembers([]byte(`{"body":1`), &m, text), '}')
	var read Shape
	if err := json.Unmarshal(written, &read); err != nil {
		t.Fatalf("%v: %s", err, written)
	}
	back, err := read.Message()
	if err != nil || !reflect.DeepEqual(m, back) {
		t.Errorf("%v: got %+v, want %+v", err, back, m)
	}
	if d := cmp.Diff(read, Show(&m)); d != "" {
		t.Error(d)
	}
	var members map[string]any
	if err := json.Unmarshal(written, &members); err != nil || len(members) != len(Table)+1 {
		t.Errorf("%d members of %d options: %s", len(members), len(Table), written)
	}
}

func TestBadDuration(t *testing.T) {
	for _, s := range []Shape{{Delay: "soon"}, {TTL: "7"}} {
		if _, err := s.Message(); err == nil {
			t.Errorf("%+v", s)
		}
	}
}
