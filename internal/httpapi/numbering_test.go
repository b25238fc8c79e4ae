package httpapi

import (
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"net/http"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
)

// TestPublisherNumbers publishes twice with a publisher id and numbers, in each form that a request
// can have. The second time every message is a duplicate, on a queue without a dedup window.
func TestPublisherNumbers(t *testing.T) {
	shardstest.One(t, "the test compares message ids")
	r := newRig(t)
	r.queue("q", `{}`)
	const id = "a-publisher-of-this-test"
	lines := header("Content-Type", "application/x-ndjson")
	for _, x := range []struct {
		name, path, body string
		with             []with
		first, again     string
	}{
		{"one", "/v1/queues/q/messages", "a", []with{header(publisherHeader, id+"1"), header(sequenceHeader, "1")},
			`{"published":1,"duplicates":0,"ids":["1-1"]}`, `{"published":1,"duplicates":1,"ids":["1-1"]}`},
		{"lines", "/v1/queues/q/messages?raw=lines", "a\nb\n", []with{header(publisherHeader, id+"2"), header(sequenceHeader, "1")},
			`{"published":2,"duplicates":0,"ids":["1-2","1-3"]}`, `{"published":2,"duplicates":2,"ids":["1-2","1-3"]}`},
		{"NDJSON", "/v1/queues/q/messages", `{"body":1}` + "\n" + `{"body":2}`, []with{lines, header(publisherHeader, id+"3"), header(sequenceHeader, "1")},
			`{"published":2,"duplicates":0,"ids":["1-4","1-5"]}`, `{"published":2,"duplicates":2,"ids":["1-4","1-5"]}`},
		{"NDJSON with queues", "/v1/publish?ids=ranges", `{"queue":"q","body":1}` + "\n" + `{"queue":"q","body":2}`,
			[]with{lines, header(publisherHeader, id+"4"), header(sequenceHeader, "1")},
			`{"published":2,"duplicates":0,"ranges":[{"first":"1-6","count":2}]}`, `{"published":2,"duplicates":2,"ranges":[{"first":"1-6","count":2,"duplicate":true}]}`},
		{"members", "/v1/publish?ids=ranges", `{"queue":"q","body":1,"publisher":"` + id + `5","sequence":1}` + "\n" + `{"queue":"q","body":2,"publisher":"` + id + `6","sequence":1}` + "\n" +
			`{"queue":"q","body":3,"publisher":"` + id + `5","sequence":2}` + "\n" + `{"queue":"q","body":3,"publisher":"` + id + `5","sequence":4}`,
			[]with{lines},
			`{"published":4,"duplicates":0,"ranges":[{"first":"1-8","count":4}]}`,
			`{"published":4,"duplicates":4,"ranges":[{"first":null,"count":1,"duplicate":true},{"first":"1-9","count":1,"duplicate":true},{"first":null,"count":1,"duplicate":true},{"first":"1-11","count":1,"duplicate":true}]}`},
	} {
		for _, want := range []string{x.first, x.again} {
			if got := r.want(http.StatusCreated, "POST", x.path, x.body, x.with...).body; got != want+"\n" {
				t.Errorf("%s: %s, want %s", x.name, got, want)
			}
		}
	}
	if n := len(r.stored("q")); n != 11 {
		t.Errorf("%d messages are stored", n)
	}
}

// TestPartOfANumberedRequest repeats a request of which a part was refused because a queue was
// full.
func TestPartOfANumberedRequest(t *testing.T) {
	shardstest.One(t, "the test compares message ids")
	r := newRig(t)
	r.queue("q", `{"max_messages":2,"overflow":"reject"}`)
	request := func(status int) answer {
		return r.want(status, "POST", "/v1/queues/q/messages?raw=lines", "a\nb\nc\nd\n", header(publisherHeader, "a-publisher-of-this-test"), header(sequenceHeader, "1"))
	}
	first := request(http.StatusTooManyRequests).body
	if !strings.Contains(first, `"ids":["1-1","1-2",null,null]`) {
		t.Error(first)
	}
	r.want(http.StatusOK, "PUT", "/v1/queues/q", `{"max_messages":0}`)
	if got := request(http.StatusCreated).body; got != `{"published":4,"duplicates":2,"ids":["1-1","1-2","1-3","1-4"]}`+"\n" {
		t.Errorf("got %s", got)
	}
}

func TestRefusedNumbers(t *testing.T) {
	r := newRig(t)
	r.queue("q", `{}`)
	const id = "a-publisher-of-this-test"
	lines := header("Content-Type", "application/x-ndjson")
	for _, x := range []struct {
		body, says string
		with       []with
	}{
		{"a", "belong together", []with{header(publisherHeader, id)}},
		{"a", "belong together", []with{header(sequenceHeader, "1")}},
		{"a", "16 to 64 bytes", []with{header(publisherHeader, "loader"), header(sequenceHeader, "1")}},
		{"a", "printable", []with{header(publisherHeader, id+" "+id), header(sequenceHeader, "1")}},
		{"a", "whole number", []with{header(publisherHeader, id), header(sequenceHeader, "0")}},
		{"a", "whole number", []with{header(publisherHeader, id), header(sequenceHeader, "-1")}},
		{"a", "numbers its messages from 1 to", []with{header(publisherHeader, id), header(sequenceHeader, "18446744073709551615")}},
		{"a", "2 times", []with{header(publisherHeader, id), header(publisherHeader, id), header(sequenceHeader, "1")}},
		{`{"body":1,"publisher":"` + id + `"}`, "numbers its messages from 1", []with{lines}},
		{`{"body":1,"sequence":1}`, "no publisher", []with{lines}},
		{`{"body":1,"publisher":"` + id + `","sequence":"1"}`, "whole number", []with{lines}},
		{`{"body":1,"publisher":"` + id + `","sequence":1}`, "not both", []with{lines, header(publisherHeader, id), header(sequenceHeader, "1")}},
	} {
		problem := r.wantProblem(r.do("POST", "/v1/queues/q/messages", x.body, x.with...), http.StatusBadRequest, surgetank.CodeInvalid)
		if detail, _ := problem["detail"].(string); !strings.Contains(detail, x.says) {
			t.Errorf("%s: %s, want %q", x.body, detail, x.says)
		}
	}
	unknown := r.wantProblem(r.do("POST", "/v1/queues/q/messages", "a", header(publisherHeader, id), header(sequenceHeader, "7")), http.StatusGatewayTimeout, surgetank.CodeUncertain)
	if unknown["field"] != surgetank.FieldPublisher {
		t.Errorf("the problem does not name its field: %v", unknown)
	}
	tx := `{"messages":[{"queue":"q","body":1,"publisher":"` + id + `","sequence":1}],"settlements":[]}`
	r.wantProblem(r.do("POST", "/v1/transact", tx), http.StatusBadRequest, surgetank.CodeInvalid)
	if n := len(r.stored("q")); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
}
