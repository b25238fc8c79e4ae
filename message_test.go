package surgetank_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Equal compares every field of a message.
func TestMessageEqual(t *testing.T) {
	base := surgetank.Message{Body: []byte("b"), Headers: []surgetank.Header{{Name: "a", Value: "1"}}}
	if !base.Equal(base) || !(surgetank.Message{Body: []byte{}}).Equal(surgetank.Message{}) {
		t.Error("equal messages differ")
	}
	for i := range reflect.TypeOf(base).NumField() {
		other := base
		name := reflect.TypeOf(base).Field(i).Name
		field := reflect.ValueOf(&other).Elem().Field(i).Addr()
		if name == "opaque" {
			field = reflect.ValueOf(door.Opaque(&other))
		}
		switch p := field.Interface().(type) {
		case *string:
			*p = "x"
		case *[]byte:
			*p = []byte("x")
		case *uint8:
			*p = 1
		case *time.Duration:
			*p = 1
		case *[]surgetank.Header:
			*p = []surgetank.Header{{Name: "a", Value: "2"}}
		default:
			t.Fatalf("Message.%s has a type that this test cannot change; teach it", name)
		}
		if base.Equal(other) || other.Equal(base) {
			t.Errorf("messages with another %s are equal", name)
		}
	}
}
