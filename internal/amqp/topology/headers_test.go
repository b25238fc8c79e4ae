package topology

import (
	"testing"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

func TestHeadersMatch(t *testing.T) {
	binding := func(pairs ...any) wire.Table { return amqptest.Args(pairs...) }
	for _, tt := range []struct {
		binding, headers wire.Table
		want             bool
	}{
		{binding(), amqptest.Args(), true},
		{binding(), amqptest.Args("a", 1), true},
		{binding("x-match", "any"), amqptest.Args("a", 1), false},
		{binding("x-match", "all", "a", 1, "b", "x"), amqptest.Args("a", int64(1), "b", "x", "c", 1), true},
		{binding("x-match", "all", "a", 1, "b", "x"), amqptest.Args("a", 1), false},
		{binding("x-match", "any", "a", 1, "b", "x"), amqptest.Args("b", "x"), true},
		{binding("x-match", "any", "a", 1), amqptest.Args("a", "1"), false},
		{binding("a", 1), amqptest.Args("a", true), false},
		{binding("x-match", "all", "x-k", 1), amqptest.Args(), true}, // names with x- are ignored
		{binding("x-match", "any", "x-k", 1), amqptest.Args("x-k", 1), false},
		{binding("x-match", "all-with-x", "x-k", 1), amqptest.Args(), false},
		{binding("x-match", "any-with-x", "x-k", 1), amqptest.Args("x-k", 1), true},
		{binding().Add("a", wire.Value{Tag: 'V'}), amqptest.Args("a", "anything"), true},
		{binding().Add("a", wire.Value{Tag: 'V'}), amqptest.Args("b", 1), false},
	} {
		m, err := parseHeadersMatch(tt.binding)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.matches(tt.headers); got != tt.want {
			t.Errorf("% x against % x: %v", tt.binding, tt.headers, got)
		}
	}
}
