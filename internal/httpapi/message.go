package httpapi

import (
	"encoding/base64"
	"fmt"
	"math"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/msgopt"
	"github.com/surgetank/surgetank/internal/settings"
)

// messageReader reads messages in JSON form, {"body": …, "group": …}, from NDJSON lines and
// transactions.
type messageReader struct {
	maxBody   int
	queues    bool // the members queue and queues are allowed: the request's path names no queue
	opaque    bool // this caller may use the member opaque_base64
	vhost     string
	oneQueue  []string                // value of Queues if queues is false
	allow     func(full string) error // if queues is true: whether the caller may write to a queue
	allowed   map[string]bool         // queues that allow accepted
	lastNames string                  // the last message's queue member and its list: consecutive messages often share them
	lastList  []string
	publisher string // publisher of the last message that had one
}

// Members of a message, as bits for finding duplicates.
const (
	hasBody = 1 << iota
	hasBase64
	hasPublisher
	hasSequence
	hasQueue
	hasQueues
	hasVhost
	hasOption // this bit and all higher bits: the options of msgopt.Table, in its order
)

// members maps names to members.
var members = func() map[string]uint {
	m := map[string]uint{
		"body": hasBody, "body_base64": hasBase64, "publisher": hasPublisher, "sequence": hasSequence,
		"queue": hasQueue, "queues": hasQueues, "vhost": hasVhost,
	}
	for i := range msgopt.Table {
		m[msgopt.Table[i].Name] = hasOption << i
	}
	return m
}()

// read reads one message object of s into p. Errors are CodeInvalid or CodeTooLarge, with the
// member as Field.
func (m *messageReader) read(s *scanner, p *surgetank.Publishing) error {
	if s.peek() != '{' {
		return surgetank.Errorf(surgetank.CodeInvalid, `a message is a JSON object such as {"body": {"total": 7}}; %w`, s.fail("it begins otherwise"))
	}
	var seen uint
	vhost, queue := m.vhost, ""
	var queues []string
	err := s.object(func(key []byte, escaped bool) error {
		bit := members[string(key)]
		if escaped {
			name, _ := unescape(key, true)
			bit = members[name]
		}
		if bit == 0 || !m.queues && bit >= hasQueue && bit < hasOption {
			return surgetank.FieldErrorf(shorten(string(key)), "a message has no member %.60q; it has body or body_base64, and %s, publisher, sequence", key, strings.Join(msgopt.Names(), ", "))
		}
		if seen&bit != 0 {
			return surgetank.FieldErrorf(string(key), "%s is there twice", key)
		}
		seen |= bit
		var err error
		msg := &p.Message
		switch bit {
		case hasBody:
			if msg.Body, err = s.skip(); err == nil && len(msg.Body) > m.maxBody {
				err = m.tooLarge("body", len(msg.Body))
			}
		case hasBase64:
			msg.Body, err = m.base64(s, "body_base64", m.maxBody)
		case hasPublisher:
			if p.Publisher, err = nameMember(s, surgetank.FieldPublisher, surgetank.MaxPublisherLen); p.Publisher == m.publisher {
				p.Publisher = m.publisher // all messages share one string
			} else {
				m.publisher = p.Publisher
			}
		case hasSequence:
			p.Sequence, err = sequenceMember(s)
		case hasQueue:
			queue, err = nameMember(s, "queue", surgetank.MaxNameLen)
		case hasVhost:
			vhost, err = nameMember(s, "vhost", surgetank.MaxNameLen)
		case hasQueues:
			queues, err = m.queueList(s)
		default:
			err = m.option(s, &msgopt.Table[bits.TrailingZeros(bit/hasOption)], msg)
		}
		return memberError(string(key), err)
	})
	if err != nil {
		return asInvalid(err)
	}
	switch {
	case seen&(hasBody|hasBase64) == 0:
		return surgetank.FieldErrorf("body", "the message has no body; give it body (any JSON) or body_base64")
	case seen&hasBody != 0 && seen&hasBase64 != 0:
		return surgetank.FieldErrorf("body_base64", "the message has both body and body_base64; give it one")
	case seen&hasBody != 0 && p.Message.ContentType == "":
		p.Message.ContentType = "application/json"
	}
	if err := surgetank.ValidatePublisher(p.Publisher, p.Sequence); err != nil {
		return err
	}
	if !m.queues {
		p.Queues = m.oneQueue
		return nil
	}
	switch {
	case seen&hasQueue != 0 && seen&hasQueues != 0:
		return surgetank.FieldErrorf("queues", "the message has both queue and queues; give it one")
	case seen&hasQueue != 0:
		if err := surgetank.ValidateName("queue", queue); err != nil {
			return surgetank.FieldErrorf("queue", "%s", err)
		}
		if full := fullname.Of(vhost, queue); full != m.lastNames || m.lastList == nil {
			m.lastNames, m.lastList = full, []string{full}
		}
		p.Queues = m.lastList
	case len(queues) > 0:
		for i, q := range queues {
			queues[i] = fullname.Of(vhost, q)
		}
		p.Queues = queues
	default:
		return surgetank.FieldErrorf("queue", "the message names no queue")
	}
	return m.checkTargets(p.Queues)
}

// option reads the value of an option into msg, by the type of its field.
func (m *messageReader) option(s *scanner, o *msgopt.Option, msg *surgetank.Message) (err error) {
	switch p := o.At(msg).(type) {
	case *string:
		*p, err = nameMember(s, o.Name, o.Max)
	case *time.Duration:
		*p, err = durationMember(s, o.Name)
	case *uint8:
		*p, err = priorityMember(s)
	case *[]surgetank.Header:
		*p, err = headersMember(s)
	case *[]byte:
		if !m.opaque {
			return surgetank.Errorf(surgetank.CodeDenied, "%s is for clients that pass messages on; it needs the tag administrator or impersonator", o.Name)
		}
		*p, err = m.base64(s, o.Name, surgetank.MaxHeaderBytes)
	}
	return err
}

func (m *messageReader) checkTargets(queues []string) error {
	for _, full := range queues {
		if m.allowed[full] {
			continue
		}
		if err := m.allow(full); err != nil {
			return err
		}
		if m.allowed == nil {
			m.allowed = map[string]bool{}
		}
		m.allowed[full] = true
	}
	return nil
}

func (m *messageReader) tooLarge(field string, n int) error {
	return &surgetank.Error{Code: surgetank.CodeTooLarge, Field: field,
		Message: fmt.Sprintf("%s has %d bytes; at most %s are allowed", field, n, settings.FormatSize(int64(m.maxBody)))}
}

// base64 reads base64 as in RFC 4648, section 4: padded, without line breaks or stray bits.
func (m *messageReader) base64(s *scanner, field string, most int) ([]byte, error) {
	if s.peek() != '"' {
		return nil, surgetank.FieldErrorf(field, "%s is base64 text in quotes", field)
	}
	raw, escaped, err := s.rawString()
	if err != nil {
		return nil, err
	}
	if escaped { // JSON writers may write / as \/
		plain, _ := unescape(raw, true)
		raw = []byte(plain)
	}
	if slices.ContainsFunc(raw, func(c byte) bool { return c == '\n' || c == '\r' }) { // the decoder would skip them
		return nil, surgetank.FieldErrorf(field, "%s is not base64: it holds line breaks", field)
	}
	if base64.StdEncoding.DecodedLen(len(raw)) > most+2 {
		return nil, m.tooLarge(field, base64.StdEncoding.DecodedLen(len(raw)))
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(raw)))
	n, err := strictBase64.Decode(out, raw)
	if err != nil {
		return nil, surgetank.FieldErrorf(field, "%s is not base64 (RFC 4648, with padding): %v", field, err)
	}
	if n > most {
		return nil, m.tooLarge(field, n)
	}
	return out[:n], nil
}

var strictBase64 = base64.StdEncoding.Strict()

func (m *messageReader) queueList(s *scanner) ([]string, error) {
	var list []string
	if s.peek() != '[' {
		return nil, surgetank.FieldErrorf("queues", "queues is a list of names")
	}
	err := s.array(func() error {
		q, err := s.text()
		if err == nil {
			if bad := surgetank.ValidateName("queue", q); bad != nil {
				err = surgetank.FieldErrorf("queues", "%s", bad)
			}
		}
		if list = append(list, q); len(list) > surgetank.MaxTargets {
			err = surgetank.FieldErrorf("queues", "the message goes to more than %d queues", surgetank.MaxTargets)
		}
		return err
	})
	return list, err
}

// nameMember reads a short text that names something. It rejects an empty text, which is always a
// mistake.
func nameMember(s *scanner, field string, most int) (string, error) {
	if s.peek() != '"' {
		return "", surgetank.FieldErrorf(field, "%s is text in quotes", field)
	}
	v, err := s.text()
	if err != nil {
		return "", err
	}
	return v, checkName(field, v, most)
}

func checkName(field, v string, most int) error {
	switch {
	case v == "":
		return surgetank.FieldErrorf(field, "%s is empty; leave it out or give it a value", field)
	case len(v) > most:
		return &surgetank.Error{Code: surgetank.CodeTooLarge, Field: field,
			Message: fmt.Sprintf("%s has %d bytes; at most %d are allowed", field, len(v), most)}
	case !utf8.ValidString(v):
		return surgetank.FieldErrorf(field, "%s is not valid UTF-8", field)
	case strings.ContainsFunc(v, isControl):
		return surgetank.FieldErrorf(field, "%s holds a control character", field)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }

func durationMember(s *scanner, field string) (time.Duration, error) {
	if s.peek() != '"' {
		return 0, surgetank.FieldErrorf(field, `%s is a duration as text, such as "500ms", "1.5s" or "20m"`, field)
	}
	v, err := s.text()
	if err != nil {
		return 0, err
	}
	return checkDuration(field, v)
}

// checkDuration reads a delay or TTL. It rejects a TTL of 0, because 0 would mean the queue's own
// TTL.
func checkDuration(field, v string) (time.Duration, error) {
	d, err := settings.ParseDuration(v)
	switch {
	case err != nil:
		return 0, surgetank.FieldErrorf(field, "%s: %s", field, err)
	case d < 0 || d == 0 && strings.HasSuffix(strings.ToLower(field), "ttl"):
		return 0, surgetank.FieldErrorf(field, "%s: want a positive duration, not %v", field, d)
	}
	return d, nil
}

func priorityMember(s *scanner) (uint8, error) {
	raw, err := s.skip()
	if err != nil {
		return 0, err
	}
	return checkPriority("priority", string(raw))
}

func checkPriority(field, v string) (uint8, error) {
	n, err := strconv.ParseUint(v, 10, 8)
	if err != nil {
		return 0, surgetank.FieldErrorf(field, "%s is a whole number between 0 and %d, not %.40s", field, surgetank.MaxPriority, v)
	}
	return uint8(n), nil
}

func sequenceMember(s *scanner) (uint64, error) {
	raw, err := s.skip()
	if err != nil {
		return 0, err
	}
	return checkSequence("sequence", string(raw))
}

func checkSequence(field, v string) (uint64, error) {
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n == 0 {
		return 0, surgetank.FieldErrorf(field, "%s is a whole number from 1 on, not %.40s", field, v)
	}
	return n, nil
}

// headersMember reads {"name": "value"}, or a list [{"name": …, "value": …}] if order or repetition
// matter.
func headersMember(s *scanner) ([]surgetank.Header, error) {
	var list []surgetank.Header
	bytes := 0
	add := func(h surgetank.Header) error {
		list = append(list, h)
		bytes += len(h.Name) + len(h.Value)
		return checkHeader("headers", h, len(list), bytes)
	}
	var err error
	switch s.peek() {
	case '{':
		names := map[string]bool{}
		err = s.object(func(key []byte, escaped bool) error {
			name, ok := unescape(key, escaped)
			if !ok || names[name] {
				return surgetank.FieldErrorf("headers", "the header %.60q is there twice or is malformed; a list of name and value can repeat a name", name)
			}
			names[name] = true
			value, err := s.text()
			if err != nil {
				return err
			}
			return add(surgetank.Header{Name: name, Value: value})
		})
	case '[':
		err = s.array(func() error {
			h, err := headerObject(s)
			if err != nil {
				return err
			}
			return add(h)
		})
	default:
		err = surgetank.FieldErrorf("headers", `headers is an object of texts, or a list of {"name": …, "value": …}`)
	}
	return list, err
}

func headerObject(s *scanner) (h surgetank.Header, err error) {
	if s.peek() != '{' {
		return h, surgetank.FieldErrorf("headers", `an item of headers is {"name": …, "value": …}`)
	}
	seen := 0
	err = s.object(func(key []byte, _ bool) error {
		var into *string
		bit := 0
		switch string(key) {
		case "name":
			into, bit = &h.Name, 1
		case "value":
			into, bit = &h.Value, 2
		}
		if into == nil || seen&bit != 0 {
			return surgetank.FieldErrorf("headers", `an item of headers is {"name": …, "value": …}, each once; %.40q is too much`, key)
		}
		seen |= bit
		var err error
		*into, err = s.text()
		return err
	})
	if err == nil && seen != 3 {
		err = surgetank.FieldErrorf("headers", `an item of headers is {"name": …, "value": …}; one is missing`)
	}
	return h, err
}

// checkHeader checks one header of a message. count is its number, bytes the size of all headers so
// far.
func checkHeader(field string, h surgetank.Header, count, bytes int) error {
	switch {
	case count > surgetank.MaxHeaders:
		return &surgetank.Error{Code: surgetank.CodeTooLarge, Field: field, Message: fmt.Sprintf("the message has more than %d headers", surgetank.MaxHeaders)}
	case bytes > surgetank.MaxHeaderBytes:
		return &surgetank.Error{Code: surgetank.CodeTooLarge, Field: field, Message: fmt.Sprintf("the message's headers have more than %d bytes together", surgetank.MaxHeaderBytes)}
	case !utf8.ValidString(h.Value):
		return surgetank.FieldErrorf(field, "the value of header %.60q is not valid UTF-8", h.Name)
	}
	if err := checkName("name", h.Name, surgetank.MaxNameLen); err != nil {
		return surgetank.FieldErrorf(field, "a header's %s", err)
	}
	return nil
}

// memberError returns an error that names the member with a JSON syntax error.
func memberError(key string, err error) error {
	if syntax, ok := err.(*jsonError); ok {
		e := surgetank.Errorf(surgetank.CodeInvalid, "%s: %w", shorten(key), syntax)
		e.Field = shorten(key)
		return e
	}
	return err
}

// asInvalid converts a JSON syntax error to an error of the API.
func asInvalid(err error) error {
	if syntax, ok := err.(*jsonError); ok {
		return surgetank.Errorf(surgetank.CodeInvalid, "this is not valid JSON: %w", syntax)
	}
	return err
}

// Names of the request headers that describe a message. Headers with headerPrefix are the message's
// own headers.
const (
	optionPrefix = "Surgetank-"
	headerPrefix = "Surgetank-Header-"

	// These two describe the request, not a message, so they are also allowed with NDJSON.
	publisherHeader = "Surgetank-Publisher"
	sequenceHeader  = "Surgetank-Sequence"
)

// options are the values of the Surgetank-* headers for the message in the body, or for each of its
// lines.
type options struct {
	message     surgetank.Message // without a body
	dedupPrefix string            // for lines: each line's dedup id is this prefix and the line's number
	dedupFirst  uint64            // the number of the first line
}

// messageOptions reads the Surgetank-* headers. It rejects unknown names, because they are typing
// errors.
func messageOptions(h http.Header, lines bool) (o options, err error) {
	var names []string
	for name := range h {
		if strings.HasPrefix(name, optionPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	msg, bytes := &o.message, 0
	for _, name := range names {
		values := h[name]
		if own, ok := strings.CutPrefix(name, headerPrefix); ok {
			for _, v := range values { // HTTP header names ignore case: they are stored in lower case
				hd := surgetank.Header{Name: strings.ToLower(own), Value: v}
				bytes += len(hd.Name) + len(hd.Value)
				msg.Headers = append(msg.Headers, hd)
				if err := checkHeader(name, hd, len(msg.Headers), bytes); err != nil {
					return o, err
				}
			}
			continue
		}
		if len(values) > 1 {
			return o, surgetank.FieldErrorf(name, "the header %s is there %d times; send it once", name, len(values))
		}
		v := values[0]
		switch name {
		case publisherHeader, sequenceHeader: // see numbering
		case "Surgetank-Dedup-Prefix":
			o.dedupPrefix, err = v, checkName(name, v, surgetank.MaxDedupIDLen-20)
		case "Surgetank-Dedup-First":
			if o.dedupFirst, err = strconv.ParseUint(v, 10, 64); err != nil || o.dedupFirst > math.MaxUint64/2 {
				err = surgetank.FieldErrorf(name, "%s is the number of the first line, not %.40q", name, v)
			}
		default:
			option := msgopt.ByHeader(name)
			if option == nil {
				return o, surgetank.FieldErrorf(name, "there is no header %.60q; there are Surgetank-Group, -Key, -Dedup-Id, -Dedup-Prefix, -Dedup-First, -Delay, -TTL, -Priority, -Publisher, -Sequence and -Header-NAME", name)
			}
			if lines && option.Name == "dedup_id" {
				return o, surgetank.FieldErrorf(name, "one dedup id would make all lines one message; send Surgetank-Dedup-Prefix, which each line's number is added to")
			}
			switch p := option.At(msg).(type) {
			case *string:
				*p, err = v, checkName(name, v, option.Max)
			case *time.Duration:
				*p, err = checkDuration(name, v)
			case *uint8:
				*p, err = checkPriority(name, v)
			}
		}
		if err != nil {
			return o, err
		}
	}
	if !lines && (o.dedupPrefix != "" || o.dedupFirst != 0) {
		return o, surgetank.FieldErrorf("Surgetank-Dedup-Prefix", "Surgetank-Dedup-Prefix and -First number the messages of ?format= and ?raw=lines; send Surgetank-Dedup-Id for one message")
	}
	return o, nil
}
