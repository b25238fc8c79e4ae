package client

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// TestOutcomes: for each answer to a publish of two messages, Publish returns only outcomes that
// are certain.
func TestOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		status int // 0: the connection ends in the middle of the answer
		body   string
		want   []Outcome
	}{
		"stored":                  {201, `{"ids":["1-1","1-2"]}`, []Outcome{Done, Done}},
		"an id is missing":        {201, `{"ids":["1-1"]}`, []Outcome{Unknown, Unknown}},
		"full":                    {429, `{"code":"full"}`, []Outcome{Refused, Refused}},
		"uncertain":               {503, `{"code":"uncertain"}`, []Outcome{Unknown, Unknown}},
		"internal":                {500, `{"code":"internal"}`, []Outcome{Unknown, Unknown}},
		"no code":                 {502, `bad gateway`, []Outcome{Unknown, Unknown}},
		"one stored, one refused": {422, `{"code":"full","ids":["1-1",null],"errors":[{"first":1,"last":1,"code":"full"}]}`, []Outcome{Done, Refused}},
		"one stored, one unknown": {422, `{"code":"full","ids":["1-1",null],"errors":[{"first":1,"last":1,"code":"uncertain"}]}`, []Outcome{Done, Unknown}},
		"cut off":                 {0, "", []Outcome{Unknown, Unknown}},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // the client's own request
				if c.status == 0 {
					w.Header().Set("Content-Length", "100")
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			defer s.Close()
			h := NewHTTP(func() string { return s.URL }, time.Minute)
			defer h.Close()
			list, _, a := h.Publish(t.Context(), "q", []Message{{Body: []byte("1")}, {Body: []byte("2"), Group: "g", Dedup: "d", Delay: time.Second}})
			var got []Outcome
			for _, r := range list {
				got = append(got, r.Outcome)
			}
			if !slices.Equal(got, c.want) || (a.Err() == nil) != (c.status == 201 && c.want[0] == Done) {
				t.Errorf("%v and %v, want %v", got, a.Err(), c.want)
			}
		})
	}
}

// TestNotSent: if nobody listens, the request was not carried out.
func TestNotSent(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	h := NewHTTP(func() string { return s.URL }, time.Minute)
	if a := h.Do(t.Context(), http.MethodGet, "/", "", nil, 0); a.Outcome != Refused || a.Err() != ErrRefused {
		t.Errorf("%+v", a)
	}
}

func TestSettleAndMetrics(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			fmt.Fprint(w, "# HELP a b\na{x=\"1 2\"} 2\na{x=\"3\"} 3\nb 1.5e1\n")
			return
		}
		b, _ := io.ReadAll(r.Body)
		if string(b) != `{"receipts":["r1","r2"],"delay":"0s"}` || r.URL.Path != "/v1/queues/q/nack" {
			t.Errorf("%s %s", r.URL, b)
		}
		fmt.Fprint(w, `{"results":[{"ok":true},{"ok":false,"code":"lease_lost"}]}`)
	}))
	defer s.Close()
	h := NewHTTP(func() string { return s.URL }, time.Minute)
	defer h.Close()
	list, a := h.Settle(t.Context(), "nack", "q", []string{"r1", "r2"}, `,"delay":"0s"`)
	if a.Err() != nil || list[0].Outcome != Done || list[1].Outcome != Refused || list[1].Code != "lease_lost" {
		t.Errorf("%+v %v", list, a.Err())
	}
	if m, err := h.Metrics(t.Context()); err != nil || m["a"] != 5 || m["b"] != 15 {
		t.Errorf("%v %v", m, err)
	}
}
