package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/test/hostile"
	"github.com/surgetank/surgetank/test/hostile/fuzzing"
)

// FuzzRequest sends every request that net/http accepts. Each gets an answer in time. Errors are
// problem objects, none is an internal error, and none discloses more than it may.
func FuzzRequest(f *testing.F) {
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { b.Close() })
	store, err := auth.Open(context.Background(), b)
	if err != nil {
		f.Fatal(err)
	}
	a := New(Options{Broker: doortest.Of(f, b), Auth: store, TrustLoopback: always, Limits: Limits{MaxWait: time.Millisecond, AcceptWait: time.Second}})
	f.Cleanup(a.Close)
	for _, c := range hostile.HTTPCases() {
		if in := c.Request(); len(in) > 0 && len(in) < 2000 {
			f.Add(in)
		}
	}
	for _, s := range []string{`{"max":10,"lease":"1s"}`, `{"receipts":["1.1.1.1"]}`, `{"settlements":[]}`, `{"messages":[{"queue":"q","body":1}]}`, `{"credit":1}`} {
		for _, path := range []string{"/v1/queues/hostile/receive", "/v1/queues/hostile/nack", "/v1/settle", "/v1/transact", "/v1/publish", "/v1/queues/hostile/redrive"} {
			r := httptest.NewRequest("POST", "http://localhost"+path, bytes.NewReader([]byte(s)))
			r.Header.Set("Content-Type", jsonType)
			var in bytes.Buffer
			if err := r.Write(&in); err != nil {
				f.Fatal(err)
			}
			f.Add(in.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			return
		}
		if r.Header.Get("Authorization") != "" || strings.HasPrefix(r.URL.Path, "/v1/users") {
			return // a password hash uses 19 MiB, on purpose
		}
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		fuzzing.Bounded(t, len(in), 4096, func() { a.ServeHTTP(w, r) })
		if w.Code < 200 || w.Code > 599 || w.Code == http.StatusInternalServerError {
			t.Fatalf("%q was answered with %d %s", in, w.Code, w.Body)
		}
		h := w.Result().Header
		if w.Code >= 400 && (h.Get("Content-Type") != "application/problem+json" || !json.Valid(w.Body.Bytes())) && !(r.URL.Path == "/readyz") {
			t.Fatalf("%q was refused with %d, %s, %s", in, w.Code, h.Get("Content-Type"), w.Body)
		}
		if h.Get("Set-Cookie") != "" || h.Get("Access-Control-Allow-Origin") != "" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Fatalf("%q was answered with %v", in, h)
		}
	})
}
