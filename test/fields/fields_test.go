package fields

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/kit/inprocess"
)

// full returns a message in which every field has a different value.
func full(t *testing.T) surgetank.Message {
	t.Helper()
	var m surgetank.Message
	v := reflect.ValueOf(&m).Elem()
	for i := range v.NumField() {
		name := strings.ToLower(v.Type().Field(i).Name)
		field := v.Field(i).Addr()
		if name == "opaque" {
			field = reflect.ValueOf(door.Opaque(&m))
		}
		switch p := field.Interface().(type) {
		case *string:
			*p = "the " + name
		case *[]byte:
			*p = []byte("the " + name)
		case *uint8:
			*p = uint8(2 + i)
		case *time.Duration:
			*p = time.Duration(i+1) * time.Hour
		case *[]surgetank.Header:
			*p = []surgetank.Header{{Name: "first", Value: "one"}, {Name: "Second", Value: "zwei ä"}, {Name: "first", Value: "again"}}
		default:
			t.Fatalf("Message.%s has a type that this test cannot fill; teach it", name)
		}
		if v.Field(i).IsZero() {
			t.Fatalf("Message.%s stayed zero", name)
		}
	}
	m.ContentType = "text/x-full"
	(*door.Opaque(&m))[0] = 0 // 0 is the number of no door, so that no door interprets the data
	return m
}

// settings are queue settings under which a message keeps all its fields.
var settings = surgetank.QueueConfig{MaxPriority: surgetank.MaxPriority, DedupWindow: time.Hour, DeadLetter: "dead"}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func open(t *testing.T, dir string) *embedded.Broker {
	t.Helper()
	b, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func publish(t *testing.T, b surgetank.Broker, queue string, m surgetank.Message) {
	t.Helper()
	for _, name := range []string{"dead", queue} {
		if _, _, err := b.DeclareQueue(t.Context(), name, settings, surgetank.DeclareIfAbsent); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range must(b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{queue}, Message: m}}))(t) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// only returns the queue's only message.
func only(t *testing.T, b surgetank.Broker, queue string) surgetank.Delivery {
	t.Helper()
	list := must(b.Peek(t.Context(), queue, surgetank.PeekOptions{}))(t)
	if len(list) != 1 {
		t.Fatalf("queue %s has %d messages", queue, len(list))
	}
	return list[0]
}

// plain is a message without methods, so that fields are compared one by one.
type plain surgetank.Message

// same requires that got equals want, except for fields that the path does not keep.
func same(t *testing.T, want, got surgetank.Message, lost ...string) {
	t.Helper()
	if d := cmp.Diff(plain(want), plain(got), cmpopts.IgnoreFields(plain{}, append(lost, "opaque")...)); d != "" {
		t.Errorf("the message has changed (-sent +got):\n%s", d)
	}
	if sent, came := *door.Opaque(&want), *door.Opaque(&got); !slices.Contains(lost, "opaque") && !bytes.Equal(sent, came) {
		t.Errorf("the opaque part has changed: sent %q, got %q", sent, came)
	}
}

func TestThroughTheLog(t *testing.T) {
	dir, m := filepath.Join(t.TempDir(), "data"), full(t)
	b := open(t, dir)
	publish(t, b, "q", m)
	same(t, m, only(t, b, "q").Message)

	killed := filepath.Join(t.TempDir(), "data")
	for { // if the broker removes a file meanwhile, the copy fails and is repeated
		if err := os.CopyFS(killed, os.DirFS(dir)); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.RemoveAll(killed); err != nil {
			t.Fatal(err)
		}
	}
	same(t, m, only(t, open(t, killed), "q").Message)

	if err := b.Close(); err != nil { // writes a snapshot
		t.Fatal(err)
	}
	same(t, m, only(t, open(t, dir), "q").Message)
}

func TestThroughADeadLetterAndARedrive(t *testing.T) {
	m := full(t)
	m.Delay = 0
	b := open(t, filepath.Join(t.TempDir(), "data"))
	publish(t, b, "q", m)
	got := must(b.Receive(t.Context(), "q", surgetank.ReceiveOptions{}))(t)
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	same(t, m, got[0].Message)
	must(b.Settle(t.Context(), []surgetank.Settlement{{Receipt: got[0].Receipt, Op: surgetank.Reject, Reason: "no"}}))(t)
	same(t, m, only(t, b, "dead").Message, "TTL") // a dead letter does not keep the TTL
	if r := must(b.Redrive(t.Context(), "dead", surgetank.RedriveOptions{}))(t); r.Moved != 1 {
		t.Fatalf("%+v", r)
	}
	same(t, m, only(t, b, "q").Message, "TTL")
}

// rig is a server in this process.
type rig struct {
	http, amqp string
	broker     *client.Client
}

func start(t *testing.T) *rig {
	t.Helper()
	s := inprocess.Start(t)
	b, err := client.Dial("http://"+s.HTTP, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{http: "http://" + s.HTTP, amqp: s.AMQP, broker: b}
	t.Cleanup(func() { _ = r.broker.Close() })
	return r
}

func TestThroughHTTPAndTheClient(t *testing.T) {
	r, m := start(t), full(t)
	publish(t, r.broker, "q", m)
	same(t, m, only(t, r.broker, "q").Message)
	m.DedupID, m.Delay = "another", 0
	publish(t, r.broker, "now", m)
	got := must(r.broker.Receive(t.Context(), "now", surgetank.ReceiveOptions{}))(t)
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	same(t, m, got[0].Message)
}

// Every member of a JSON message can also be set with a request header.
func TestRequestHeaders(t *testing.T) {
	r, m := start(t), full(t)
	publish(t, r.broker, "other", m)
	if _, _, err := r.broker.DeclareQueue(t.Context(), "q", settings, surgetank.DeclareIfAbsent); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.http+"/v1/queues/q/messages", strings.NewReader(string(m.Body)))
	if err != nil {
		t.Fatal(err)
	}
	notInHeaders := map[string]bool{"Body": true, "opaque": true} // the request's body is the message's; opaque is only for programs
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if notInHeaders[name] {
			continue
		}
		switch f := v.Field(i).Interface().(type) {
		case []surgetank.Header:
			for _, h := range f {
				req.Header.Add("Surgetank-Header-"+h.Name, h.Value)
			}
		default:
			key := map[string]string{"ContentType": "Content-Type", "DedupID": "Surgetank-Dedup-Id"}[name]
			if key == "" {
				key = "Surgetank-" + name
			}
			req.Header.Set(key, fmt.Sprint(f))
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", res.Status, answer)
	}
	got := only(t, r.broker, "q").Message
	for i := range got.Headers { // HTTP does not keep the order of headers and the case of their names
		got.Headers[i].Name = strings.ToLower(got.Headers[i].Name)
	}
	for i := range m.Headers {
		m.Headers[i].Name = strings.ToLower(m.Headers[i].Name)
	}
	byName := cmpopts.SortSlices(func(a, b surgetank.Header) bool { return a.Name+a.Value < b.Name+b.Value })
	if d := cmp.Diff(plain(m), plain(got), byName, cmpopts.IgnoreFields(plain{}, "opaque")); d != "" {
		t.Errorf("(-sent +got):\n%s", d)
	}
}

// The command line shows every field of a message.
func TestCommandLine(t *testing.T) {
	r, m := start(t), full(t)
	publish(t, r.broker, "q", m)
	binary, err := build.Server(t.Context(), t.TempDir(), "surgetank", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), binary, "queue", "peek", "q", "--json", "--server", r.http).Output()
	if err != nil {
		t.Fatal(err)
	}
	var shown map[string]any
	if err := json.Unmarshal(out, &shown); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	members := map[string]string{"Body": "body_text", "ContentType": "content_type", "DedupID": "dedup_id", "opaque": ""} // opaque is only for programs
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		key, special := members[name]
		if !special {
			key = strings.ToLower(name)
		}
		if key != "" && shown[key] == nil {
			t.Errorf("the member %q is missing, so Message.%s is not shown: %s", key, name, out)
		}
	}
}

// A message from another door is delivered over AMQP with all fields that AMQP has names for.
func TestThroughAMQP(t *testing.T) {
	r, m := start(t), full(t)
	m.Delay = 0
	publish(t, r.broker, "q", m)
	c, err := amqp.Dial("amqp://guest:guest@" + r.amqp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ch := must(c.Channel())(t)
	d, ok, err := ch.Get("q", true)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	shown := map[string]bool{
		"Body":        string(d.Body) == string(m.Body),
		"ContentType": d.ContentType == m.ContentType,
		"Headers":     d.Headers["Second"] == "zwei ä",
		"Key":         d.RoutingKey == m.Key,
		"Group":       d.Headers["x-group-id"] == m.Group,
		"Priority":    d.Priority == m.Priority,
	}
	notInAMQP := map[string]string{
		"DedupID": "the publisher's own affair",
		"Delay":   "is over when the message is delivered",
		"TTL":     "the broker's affair",
		"opaque":  "another door's",
	}
	for i := range reflect.TypeOf(m).NumField() {
		name := reflect.TypeOf(m).Field(i).Name
		if right, has := shown[name]; !right && notInAMQP[name] == "" {
			t.Errorf("Message.%s is not in the delivery (looked at: %v): %+v", name, has, d)
		}
	}
}
