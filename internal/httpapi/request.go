package httpapi

import (
	"bytes"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"os"
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

// held is a body in memory. release frees its bytes of the budget, once.
type held struct {
	data   []byte
	budget *budget
	taken  int64
}

func (h *held) release() {
	h.budget.give(h.taken)
	h.taken = 0
}

// more reserves memory for data made from the body. release frees it together with the body.
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
		Message: "the memory for request bodies is used up; try again in a moment"}
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

// pacedReader gives the sender of a body BodyGrace, and then the time that the received bytes take
// at MinBodyRate.
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

func orNothing(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
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
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the body is not valid JSON: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the body must be a JSON object")
	}
	f := newFields("", m)
	f.raw = bytes.Clone(h.data)
	return f, nil
}

// clampInt limits a configured limit to the range of an int.
func clampInt(n int64) int { return int(min(n, math.MaxInt32)) }
