package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/input"
)

// ndjsonTypes are the media types for one JSON object per line; no type is registered.
var ndjsonTypes = []string{"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}

// publish stores the body as one message. With ?format= it divides the body into messages; with
// NDJSON each JSON object is a message.
func (c *call) publish() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	format, cut, err := cutParams(q.text)
	if err != nil {
		return err
	}
	media, err := c.mediaType()
	if err != nil {
		return err
	}
	ndjson := slices.Contains(ndjsonTypes, media)
	many := ndjson || cut
	opts, err := messageOptions(c.r.Header, cut)
	if err != nil {
		return err
	}
	from, err := numberingOf(c.r.Header)
	if err != nil {
		return err
	}
	limit := int64(c.api.limits.MaxMessage)
	if many {
		limit = c.api.limits.MaxBody
	}
	body, err := c.readBody(limit)
	if err != nil {
		return err
	}
	queues := []string{c.queue()}
	var msgs []surgetank.Publishing
	switch {
	case cut:
		opts.message.ContentType = cutType(format.Format, media)
		msgs, err = c.cut(body, queues, format, &opts)
	case ndjson:
		if hasOptions(c.r.Header) {
			err = surgetank.FieldErrorf("Surgetank-*", "Surgetank-* headers describe the message of a raw body; in NDJSON every line has its own group, delay and so on")
		} else {
			msgs, err = c.readNDJSON(body.data, &messageReader{maxBody: c.api.limits.MaxMessage, oneQueue: queues, opaque: c.mayOpaque()})
		}
	default:
		opts.message.ContentType = bodyType(media)
		opts.message.Body = body.data
		msgs = []surgetank.Publishing{{Queues: queues, Message: opts.message}}
	}
	if err == nil {
		err = from.number(msgs)
	}
	if err != nil {
		body.release()
		return err
	}
	return c.store(msgs, body, q.text("ids"))
}

// publishMany is publish for NDJSON whose lines name their queues.
func (c *call) publishMany() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	media, err := c.mediaType()
	if err != nil {
		return err
	}
	if !slices.Contains(ndjsonTypes, media) {
		return withStatus(http.StatusUnsupportedMediaType, surgetank.FieldErrorf("Content-Type", "this request is NDJSON; send Content-Type: application/x-ndjson"))
	}
	from, err := numberingOf(c.r.Header)
	if err != nil {
		return err
	}
	body, err := c.readBody(c.api.limits.MaxBody)
	if err != nil {
		return err
	}
	msgs, err := c.readNDJSON(body.data, c.targetReader())
	if err == nil {
		err = from.number(msgs)
	}
	if err != nil {
		body.release()
		return err
	}
	return c.store(msgs, body, q.text("ids"))
}

// targetReader reads messages that name their queues, and checks that the caller may write to each.
func (c *call) targetReader() *messageReader {
	return &messageReader{
		maxBody: c.api.limits.MaxMessage, queues: true, vhost: surgetank.DefaultVhost, opaque: c.mayOpaque(),
		allow: func(full string) error {
			vhost, queue := surgetank.SplitName(full)
			return c.api.opts.Auth.Authorize(c.user, vhost, auth.Write, queue)
		},
	}
}

// mayOpaque reports whether the caller may send opaque properties of another door's protocol. They
// can name another user as the author.
func (c *call) mayOpaque() bool {
	store := c.api.opts.Auth
	return c.user.IsLocal() || store.HasTag(c.user, auth.TagAdministrator) || store.HasTag(c.user, auth.TagImpersonator)
}

func hasOptions(h http.Header) bool {
	for name := range h {
		if len(name) > len(optionPrefix) && name[:len(optionPrefix)] == optionPrefix && name != publisherHeader && name != sequenceHeader {
			return true
		}
	}
	return false
}

// bodyType returns the content type of a raw body, or of each of its lines.
func bodyType(media string) string {
	if media == "application/x-www-form-urlencoded" { // curl's default
		return ""
	}
	return media
}

// readNDJSON reads one message object per line. Blank lines are no messages, but they are counted.
func (c *call) readNDJSON(data []byte, m *messageReader) ([]surgetank.Publishing, error) {
	if order := input.Mark(data); order != "" {
		return nil, inLine(1, surgetank.FieldErrorf("line", "the body begins with the byte order mark of %s; message objects are UTF-8 without one", order))
	}
	msgs := make([]surgetank.Publishing, 0, min(bytes.Count(data, []byte{'\n'})+1, c.api.limits.MaxLines))
	for number := 1; len(data) > 0; number++ {
		line := data
		if end := bytes.IndexByte(data, '\n'); end >= 0 {
			line, data = data[:end:end], data[end+1:]
		} else {
			data = nil
		}
		line, e := input.Line(line, input.Lines)
		if e != nil {
			return nil, inLine(number, e)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if len(msgs) == c.api.limits.MaxLines {
			return nil, c.api.tooManyLines()
		}
		msgs = append(msgs, surgetank.Publishing{})
		s := scanner{data: line, depth: maxBodyDepth}
		err := m.read(&s, &msgs[len(msgs)-1])
		if err == nil {
			err = asInvalid(s.end())
		}
		if err != nil {
			return nil, inLine(number, err)
		}
	}
	if len(msgs) == 0 {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, `the body holds no message; send one JSON object a line, such as {"body": {"total": 7}}`)
	}
	return msgs, nil
}

// inLine puts the line's number before an error's text.
func inLine(number int, err error) error {
	if e, ok := err.(*surgetank.Error); ok {
		named := *e
		named.Message = fmt.Sprintf("line %d: %s; nothing of this request was published", number, e.Message)
		err = &named
	}
	return &lineError{number, err}
}

func (a *API) tooManyLines() error {
	return surgetank.Errorf(surgetank.CodeTooLarge, "the body has more than %d lines; send fewer messages at once", a.limits.MaxLines)
}

// outcome is the result of a publish.
type outcome struct {
	results []surgetank.PublishResult
	err     error
}

// store publishes and answers. The broker owns the body's memory until it is done with it, even if
// the client has left.
func (c *call) store(msgs []surgetank.Publishing, body *held, ids string) error {
	accept, cancel := context.WithTimeout(c.r.Context(), c.api.limits.AcceptWait)
	defer cancel()
	done := make(chan outcome, 1)
	err := c.broker().PublishAsync(accept, msgs, func(results []surgetank.PublishResult, err error) {
		body.release()
		done <- outcome{results, err}
	})
	if err != nil {
		body.release()
		return err
	}
	var o outcome
	select {
	case o = <-done:
	case <-c.r.Context().Done():
		return surgetank.Errorf(surgetank.CodeUncertain, "the client left before its messages were stored; they may be or become stored")
	}
	if o.err != nil {
		return o.err
	}
	return c.answerPublished(o.results, ids)
}

// partialError is the error of a publish of which some messages were refused.
type partialError struct {
	err     error
	partial partial
}

func (e *partialError) Error() string { return e.err.Error() }
func (e *partialError) Unwrap() error { return e.err }

func (c *call) answerPublished(results []surgetank.PublishResult, ids string) error {
	for i := range results {
		if results[i].Err != nil {
			return refusedSome(results)
		}
	}
	b := make([]byte, 0, 64+16*len(results))
	b = append(b, `{"published":`...)
	b = strconv.AppendInt(b, int64(len(results)), 10)
	duplicates := 0
	for i := range results {
		if results[i].Duplicate {
			duplicates++
		}
	}
	b = append(b, `,"duplicates":`...)
	b = strconv.AppendInt(b, int64(duplicates), 10)
	switch ids {
	case "none":
	case "ranges":
		b = appendRanges(append(b, `,"ranges":`...), results)
	default:
		b = append(b, `,"ids":[`...)
		for i := range results {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendID(b, results[i].ID)
		}
		b = append(b, ']')
	}
	return c.respondRaw(http.StatusCreated, append(b, "}\n"...))
}

// appendID writes an id, or null for a duplicate whose id the broker no longer knows.
func appendID(b []byte, id surgetank.MessageID) []byte {
	if id.Seq == 0 {
		return append(b, "null"...)
	}
	b, _ = id.AppendText(append(b, '"')) // never fails
	return append(b, '"')
}

// appendRanges writes runs of consecutive ids, in the order of the messages.
func appendRanges(b []byte, results []surgetank.PublishResult) []byte {
	b = append(b, '[')
	for i := 0; i < len(results); {
		first := results[i]
		n := 1
		for i+n < len(results) {
			next := results[i+n]
			step := uint64(n)
			if first.ID.Seq == 0 {
				step = 0
			}
			if next.ID.Queue != first.ID.Queue || next.ID.Seq != first.ID.Seq+step || next.ID.Incarnation != first.ID.Incarnation || next.Duplicate != first.Duplicate {
				break
			}
			n++
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendID(append(b, `{"first":`...), first.ID)
		b = append(b, `,"count":`...)
		b = strconv.AppendInt(b, int64(n), 10)
		if first.Duplicate {
			b = append(b, `,"duplicate":true`...)
		}
		b = append(b, '}')
		i += n
	}
	return append(b, ']')
}

// refusedSome returns the error for a publish that was not stored completely. It has the first
// refusal's status and text, and the result of each message.
func refusedSome(results []surgetank.PublishResult) error {
	p := partial{IDs: make([]*string, len(results))}
	var first error
	for i, r := range results {
		if r.Err == nil {
			if r.ID.Seq != 0 {
				id := r.ID.String()
				p.IDs[i] = &id
			}
			p.Published++
			if r.Duplicate {
				p.Duplicates++
			}
			continue
		}
		if first == nil {
			first = r.Err
		}
		one := problemOf(r.Err)
		if n := len(p.Errors); n > 0 && p.Errors[n-1].Last == i-1 && p.Errors[n-1].Code == one.Code && p.Errors[n-1].Detail == one.Detail {
			p.Errors[n-1].Last = i
			continue
		}
		p.Errors = append(p.Errors, messageError{First: i, Last: i, Code: one.Code, Detail: one.Detail, Field: one.Field})
	}
	if len(results) > 1 {
		if e, ok := first.(*surgetank.Error); ok {
			named := *e
			named.Message = fmt.Sprintf("%d of %d messages were stored, the first of the others was refused: %s", p.Published, len(results), e.Message)
			first = &named
		}
	}
	return &partialError{first, p}
}

// transact publishes and settles in one transaction.
func (c *call) transact() error {
	if _, err := c.query(); err != nil {
		return err
	}
	body, err := c.readBody(c.api.limits.MaxBody)
	if err != nil {
		return err
	}
	defer body.release()
	m := c.targetReader()
	var (
		msgs  []surgetank.Publishing
		parts []surgetank.Settlement
		seen  = map[string]bool{}
	)
	s := &scanner{data: body.data, depth: maxBodyDepth}
	if s.peek() != '{' {
		return surgetank.Errorf(surgetank.CodeInvalid, "the body must be a JSON object with messages and settlements")
	}
	err = s.object(func(key []byte, _ bool) error {
		name := string(key)
		if seen[name] {
			return surgetank.FieldErrorf(name, "%s is there twice", name)
		}
		seen[name] = true
		switch name {
		case "messages":
			return s.array(func() error {
				if len(msgs) == c.api.limits.MaxLines {
					return c.api.tooManyLines()
				}
				msgs = append(msgs, surgetank.Publishing{})
				return m.read(s, &msgs[len(msgs)-1])
			})
		case "settlements":
			raw, err := s.skip()
			if err != nil {
				return err
			}
			parts, err = c.settlements(raw)
			return err
		}
		return surgetank.FieldErrorf(shorten(name), "a transaction has messages and settlements, not %.60q", name)
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return asInvalid(err)
	}
	for _, p := range parts {
		if err := c.ownReceipt(p.Receipt); err != nil {
			return err
		}
	}
	results, err := c.broker().Transact(c.r.Context(), msgs, parts)
	if err != nil {
		return err
	}
	return c.answerPublished(results, "list")
}

// settlements reads a list of settlement objects.
func (c *call) settlements(raw json.RawMessage) ([]surgetank.Settlement, error) {
	v, err := tree(raw, maxJSONDepth)
	if err != nil {
		return nil, err
	}
	f := newFields("", map[string]any{"settlements": v})
	list := readSettlements(f, &c.api.limits)
	return list, f.done()
}
