package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

// budget limits the total bytes of bodies that all requests have in memory.
type budget struct {
	max  int64
	used atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.max {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// held is a body in memory. release returns its bytes to the budget, once.
type held struct {
	data   []byte
	budget *budget
	taken  int64
}

func (h *held) release() {
	h.budget.give(h.taken)
	h.taken = 0
}

// more reserves memory for data made from the body. It is released with the body.
func (h *held) more(n int64) error {
	if !h.budget.take(n) {
		return errBodies()
	}
	h.taken += n
	return nil
}

// errMemory is the cause of errors about the memory limits for requests or answers.
var errMemory = errors.New("the memory for requests or answers is used up")

func errBodies() error {
	return &surgetank.Error{Code: surgetank.CodeBusy, RetryAfter: defaultRetryAfter, Err: errMemory,
		Message: "the server holds as many request bodies as it may; try again in a moment"}
}

// readBody reads the whole body, at most max bytes, at the rate that the limits require. Memory
// grows with the received bytes, never with the declared length.
func (c *call) readBody(max int64) (*held, error) {
	if enc := c.r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, withStatus(http.StatusUnsupportedMediaType, surgetank.FieldErrorf("Content-Encoding",
			"bodies are taken as they are, without Content-Encoding; send it unpacked"))
	}
	tooLarge := surgetank.Errorf(surgetank.CodeTooLarge, "the body is larger than %s; send fewer or smaller messages at once", settings.FormatSize(max))
	if c.r.ContentLength > max {
		return nil, tooLarge
	}
	h := &held{budget: &c.api.bodies}
	body := &pacedReader{r: http.MaxBytesReader(c.w, c.r.Body, max), control: http.NewResponseController(c.w), limits: &c.api.limits, start: time.Now()}
	first := int64(4 << 10)
	if c.r.ContentLength >= 0 {
		first = min(c.r.ContentLength+1, 64<<10)
	}
	for {
		if len(h.data) == cap(h.data) {
			grown := min(max+1, first+2*int64(cap(h.data)))
			if c.r.ContentLength >= 0 {
				grown = min(grown, c.r.ContentLength+1)
			}
			extra := grown - int64(cap(h.data))
			if extra <= 0 {
				extra, grown = 1, int64(cap(h.data))+1
			}
			if !h.budget.take(extra) {
				h.release()
				return nil, errBodies()
			}
			h.taken += extra
			h.data = append(make([]byte, 0, grown), h.data...)
		}
		n, err := body.Read(h.data[len(h.data):cap(h.data)])
		h.data = h.data[:len(h.data)+n]
		if err == nil {
			continue
		}
		if err == io.EOF {
			body.stop()
			return h, nil
		}
		h.release() // the deadline stays: net/http reads the rest
		var over *http.MaxBytesError
		switch {
		case errors.As(err, &over):
			return nil, tooLarge
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.w.Header().Set("Connection", "close")
			return nil, withStatus(http.StatusRequestTimeout, surgetank.Errorf(surgetank.CodeInvalid,
				"the body came slower than %s a second; nothing of it was used", settings.FormatSize(c.api.limits.MinBodyRate)))
		default:
			return nil, surgetank.Errorf(surgetank.CodeInvalid, "the body could not be read: it ends early or its chunks are malformed")
		}
	}
}

// pacedReader returns the sender of a body BodyGrace, and then the time that the received bytes
// take at MinBodyRate.
type pacedReader struct {
	r       io.Reader
	control *http.ResponseController
	limits  *Limits
	start   time.Time
	read    int64
	set     time.Time
}

func (p *pacedReader) Read(b []byte) (int, error) {
	deadline := p.start.Add(p.limits.BodyGrace + time.Duration(float64(p.read)/float64(p.limits.MinBodyRate)*float64(time.Second)))
	if deadline.Sub(p.set) > time.Second/4 {
		_ = p.control.SetReadDeadline(deadline) // only a test's writer has no deadlines
		p.set = deadline
	}
	n, err := p.r.Read(b)
	p.read += int64(n)
	return n, err
}

// stop removes the deadline when the whole body is read. The client's next request may take as long
// as the server allows.
func (p *pacedReader) stop() { _ = p.control.SetReadDeadline(time.Time{}) }

// mediaType is the Content-Type without parameters, or "" if there is none.
func (c *call) mediaType() (string, error) {
	v := c.r.Header.Get("Content-Type")
	if v == "" {
		return "", nil
	}
	t, _, err := mime.ParseMediaType(v)
	if err != nil {
		return "", withStatus(http.StatusUnsupportedMediaType, surgetank.FieldErrorf("Content-Type", "the Content-Type %.80q is malformed", v))
	}
	return t, nil
}

// query returns the query parameters. Only the named ones are allowed, at most once each.
func (c *call) query(allowed ...string) (url.Values, error) {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, surgetank.FieldErrorf("query", "the part of the URL behind the question mark is malformed")
	}
	for name, values := range q {
		if !slices.Contains(allowed, name) {
			return nil, surgetank.FieldErrorf(shorten(name), "there is no parameter %.60q here; there is %s", name, orNothing(allowed))
		}
		if len(values) > 1 {
			return nil, surgetank.FieldErrorf(name, "the parameter %s is there %d times; send it once", name, len(values))
		}
	}
	return q, nil
}

func orNothing(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func queryBool(q url.Values, name string) (bool, error) {
	switch q.Get(name) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, surgetank.FieldErrorf(name, "%s is true or false, not %.40q", name, q.Get(name))
}

func queryUint(q url.Values, name string, max uint64) (uint64, error) {
	if q.Get(name) == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(q.Get(name), 10, 64)
	if err != nil || n > max {
		return 0, surgetank.FieldErrorf(name, "%s is a whole number up to %d, not %.40q", name, max, q.Get(name))
	}
	return n, nil
}

// noBody rejects a body if a request has no use for one, so the client does not believe it had an
// effect.
func (c *call) noBody() error {
	h, err := c.readBody(maxControlBody)
	if err != nil {
		return err
	}
	defer h.release()
	if len(h.data) > 0 && strings.TrimSpace(string(h.data)) != "{}" {
		return surgetank.Errorf(surgetank.CodeInvalid, "this request takes no body")
	}
	return nil
}

// object reads a request that is one JSON object. A missing body is an empty object.
func (c *call) object() (*fields, error) {
	t, err := c.mediaType()
	if err != nil {
		return nil, err
	}
	if t != "" && t != "application/json" && !strings.HasSuffix(t, "+json") {
		return nil, withStatus(http.StatusUnsupportedMediaType, surgetank.FieldErrorf("Content-Type",
			"this request is JSON; send Content-Type: application/json, not %.80q", t))
	}
	h, err := c.readBody(maxControlBody)
	if err != nil {
		return nil, err
	}
	defer h.release()
	if len(h.data) == 0 {
		return newFields("", map[string]any{}), nil
	}
	v, err := tree(h.data, maxJSONDepth)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the body is not JSON as it should be: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the body must be a JSON object")
	}
	f := newFields("", m)
	f.raw = bytes.Clone(h.data)
	return f, nil
}

// fields reads the members of an object one by one and records the first error. done rejects
// members that were not read.
type fields struct {
	prefix string
	m      map[string]any
	raw    []byte // text of a request's whole object; it has the order of the members
	known  []string
	err    error
}

func newFields(prefix string, m map[string]any) *fields { return &fields{prefix: prefix, m: m} }

func (f *fields) fail(name, format string, args ...any) {
	if f.err == nil {
		name = f.prefix + name
		f.err = surgetank.FieldErrorf(name, "%s: %s", name, fmt.Sprintf(format, args...))
	}
}

// take returns a member's value, or false if it is missing. null is not a valid value for any
// member.
func (f *fields) take(name string) (any, bool) {
	f.known = append(f.known, name)
	v, ok := f.m[name]
	if ok && v == nil {
		f.fail(name, "it is null; leave it out instead")
		return nil, false
	}
	return v, ok
}

func (f *fields) has(name string) bool { _, ok := f.m[name]; return ok }

func (f *fields) text(name string, maxLen int) string {
	v, ok := f.take(name)
	if !ok {
		return ""
	}
	s, isText := v.(string)
	switch {
	case !isText:
		f.fail(name, "want text")
	case len(s) > maxLen:
		f.fail(name, "it has %d bytes; at most %d are allowed", len(s), maxLen)
	}
	return s
}

func (f *fields) flag(name string, def bool) bool {
	v, ok := f.take(name)
	if !ok {
		return def
	}
	b, isBool := v.(bool)
	if !isBool {
		f.fail(name, "want true or false")
	}
	return b
}

func (f *fields) integer(name string, least, most, def int64) int64 {
	v, ok := f.take(name)
	if !ok {
		return def
	}
	n, isNumber := v.(json.Number)
	i, err := strconv.ParseInt(string(n), 10, 64)
	if !isNumber || err != nil || i < least || i > most {
		f.fail(name, "want a whole number between %d and %d", least, most)
		return def
	}
	return i
}

func (f *fields) duration(name string, least, most, def time.Duration) time.Duration {
	v, ok := f.take(name)
	if !ok {
		return def
	}
	s, isText := v.(string)
	if !isText {
		f.fail(name, `want a duration as text, such as "500ms", "1.5s" or "20m"`)
		return def
	}
	d, err := settings.ParseDuration(s)
	switch {
	case err != nil:
		f.fail(name, "%s", err)
		return def
	case d < least || d > most:
		f.fail(name, "want a duration between %v and %v, not %v", least, most, d)
		return def
	}
	return d
}

func (f *fields) rate(name string) surgetank.Rate {
	v, ok := f.take(name)
	if !ok {
		return 0
	}
	var r surgetank.Rate
	var err error
	switch v := v.(type) {
	case string:
		r, err = settings.ParseRate(v)
	case json.Number:
		var n float64
		if n, err = v.Float64(); err == nil {
			r, err = settings.ParseRate(strconv.FormatFloat(n, 'f', -1, 64))
		}
	default:
		err = fmt.Errorf(`want a rate, such as "2000/s"`)
	}
	if err != nil {
		f.fail(name, "%s", err)
	}
	return r
}

// texts returns a list of texts and calls use with each.
func (f *fields) texts(name string, most int) []string {
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList {
		f.fail(name, "want a list of texts")
		return nil
	}
	if len(list) > most {
		if f.err == nil {
			f.err = &surgetank.Error{Code: surgetank.CodeTooLarge, Field: f.prefix + name,
				Message: fmt.Sprintf("%s%s: it has %d items; at most %d are allowed at once", f.prefix, name, len(list), most)}
		}
		return nil
	}
	out := make([]string, len(list))
	for i, item := range list {
		if out[i], ok = item.(string); !ok {
			f.fail(fmt.Sprintf("%s[%d]", name, i), "want text")
			return nil
		}
	}
	return out
}

// objects returns a list of objects.
func (f *fields) objects(name string, most int) []*fields {
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList || len(list) > most {
		f.fail(name, "want a list of at most %d objects", most)
		return nil
	}
	out := make([]*fields, len(list))
	for i, item := range list {
		m, isMap := item.(map[string]any)
		if !isMap {
			f.fail(fmt.Sprintf("%s[%d]", name, i), "want an object")
			return nil
		}
		out[i] = newFields(fmt.Sprintf("%s%s[%d].", f.prefix, name, i), m)
	}
	return out
}

// need rejects an object without a member.
func (f *fields) need(name string) {
	if !f.has(name) {
		f.fail(name, "it is missing")
	}
}

// done returns the first error, or rejects a member that was not read.
func (f *fields) done() error {
	if f.err != nil {
		return f.err
	}
	unknown := ""
	for name := range f.m {
		if !slices.Contains(f.known, name) && (unknown == "" || name < unknown) {
			unknown = name
		}
	}
	if len(f.m) > 0 && (unknown != "" || f.has("") && !slices.Contains(f.known, "")) {
		f.fail(shorten(unknown), "this request knows no such member; it knows %s", orNothing(f.known))
	}
	return f.err
}

// clampInt limits a configured limit to the range of an int.
func clampInt(n int64) int { return int(min(n, math.MaxInt32)) }
