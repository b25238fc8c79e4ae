package client

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"github.com/surgetank/surgetank"
)

// appendMessage writes a publishing as one line of NDJSON. Bodies are base64, so that every byte
// and the content type stay the same. If publisher is not empty, the line has publisher and
// sequence.
func appendMessage(b []byte, p *surgetank.Publishing, publisher string, sequence uint64) ([]byte, error) {
	vhost := ""
	b = append(b, '{')
	b = append(b, `"queues":[`...)
	for i, full := range p.Queues {
		v, q := surgetank.SplitName(full)
		if i > 0 {
			b = append(b, ',')
			if v != vhost {
				return nil, surgetank.FieldErrorf("queues", "one message can go to queues of one virtual host over HTTP, not of %q and %q", vhost, v)
			}
		}
		vhost = v
		b = appendText(b, q)
	}
	b = append(b, ']')
	if len(p.Queues) > 0 && vhost != surgetank.DefaultVhost {
		b = appendText(append(b, `,"vhost":`...), vhost)
	}
	m := &p.Message
	b = appendMember(b, "content_type", m.ContentType)
	b = appendMember(b, "key", m.Key)
	b = appendMember(b, "group", m.Group)
	b = appendMember(b, "dedup_id", m.DedupID)
	if b = appendMember(b, "publisher", publisher); publisher != "" {
		b = strconv.AppendUint(append(b, `,"sequence":`...), sequence, 10)
	}
	if m.Priority != 0 {
		b = strconv.AppendUint(append(b, `,"priority":`...), uint64(m.Priority), 10)
	}
	if m.Delay != 0 {
		b = appendMember(b, "delay", m.Delay.String())
	}
	if m.TTL != 0 {
		b = appendMember(b, "ttl", m.TTL.String())
	}
	if len(m.Headers) > 0 {
		b = append(b, `,"headers":[`...)
		for i, h := range m.Headers {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(append(b, `{"name":`...), h.Name)
			b = append(appendText(append(b, `,"value":`...), h.Value), '}')
		}
		b = append(b, ']')
	}
	if len(m.Opaque) > 0 {
		b = appendBytes(b, "opaque_base64", m.Opaque)
	}
	return append(appendBytes(b, "body_base64", m.Body), '}'), nil
}

func appendMember(b []byte, name, v string) []byte {
	if v == "" {
		return b
	}
	return appendText(append(append(append(b, `,"`...), name...), `":`...), v)
}

func appendBytes(b []byte, name string, v []byte) []byte {
	b = append(append(append(b, `,"`...), name...), `":"`...)
	return append(base64.StdEncoding.AppendEncode(b, v), '"')
}

// appendText writes a JSON string. Bytes that are not UTF-8 are sent unchanged. The server then
// refuses the field by name, which is better than a silent change.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// wireMessage is a message in the server's JSON.
type wireMessage struct {
	ID          string             `json:"id"`
	Receipt     string             `json:"receipt"`
	Queue       string             `json:"queue"`
	Vhost       string             `json:"vhost"`
	Time        time.Time          `json:"time"`
	Attempt     int                `json:"attempt"`
	Redelivered bool               `json:"redelivered"`
	Deadline    time.Time          `json:"deadline"`
	State       surgetank.State    `json:"state"`
	Damage      string             `json:"damage"`
	Due         time.Time          `json:"due"`
	Failure     string             `json:"failure"`
	Waiting     string             `json:"waiting"`
	Group       string             `json:"group"`
	Key         string             `json:"key"`
	DedupID     string             `json:"dedup_id"`
	Priority    uint8              `json:"priority"`
	Delay       string             `json:"delay"`
	TTL         string             `json:"ttl"`
	ContentType string             `json:"content_type"`
	Headers     []surgetank.Header `json:"headers"`
	Deaths      []surgetank.Death  `json:"deaths"`
	Opaque      []byte             `json:"opaque_base64"`
	Body        json.RawMessage    `json:"body"`
	BodyBase64  []byte             `json:"body_base64"`
}

func (w *wireMessage) delivery() (d surgetank.Delivery, err error) {
	d.Message = surgetank.Message{ContentType: w.ContentType, Headers: w.Headers, Key: w.Key, Group: w.Group, DedupID: w.DedupID,
		Priority: w.Priority, Opaque: w.Opaque, Body: w.BodyBase64}
	if w.Body != nil {
		d.Body = w.Body
	}
	d.Time, d.Attempt, d.Redelivered, d.Deadline, d.Deaths, d.State, d.Damage = w.Time, w.Attempt, w.Redelivered, w.Deadline, w.Deaths, w.State, w.Damage
	d.Due, d.Failure, d.Waiting = w.Due, w.Failure, w.Waiting
	vhost := w.Vhost
	if vhost == "" {
		vhost = surgetank.DefaultVhost
	}
	d.Queue = surgetank.FullName(vhost, w.Queue)
	if d.ID, err = surgetank.ParseMessageID(w.ID); err != nil {
		return d, err
	}
	if w.Receipt != "" {
		if d.Receipt, err = surgetank.ParseReceipt(w.Receipt); err != nil {
			return d, err
		}
	}
	for _, t := range []struct {
		text string
		into *time.Duration
	}{{w.Delay, &d.Delay}, {w.TTL, &d.TTL}} {
		if t.text == "" {
			continue
		}
		if *t.into, err = time.ParseDuration(t.text); err != nil {
			return d, surgetank.Errorf(surgetank.CodeInternal, "the server sent an invalid duration: %w", err)
		}
	}
	return d, nil
}

// wireMessages is a list of messages in the server's JSON.
type wireMessages struct {
	Messages []wireMessage `json:"messages"`
	Floor    uint64        `json:"floor"`
}

// appendTo decodes the messages and appends them to buf.
func (w *wireMessages) appendTo(buf []surgetank.Delivery) ([]surgetank.Delivery, error) {
	for i := range w.Messages {
		d, err := w.Messages[i].delivery()
		if err != nil {
			return buf, err
		}
		buf = append(buf, d)
	}
	return buf, nil
}
