package client

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/msgopt"
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
		b = msgopt.AppendText(b, q)
	}
	b = append(b, ']')
	if len(p.Queues) > 0 && vhost != surgetank.DefaultVhost {
		b = msgopt.AppendText(append(b, `,"vhost":`...), vhost)
	}
	if b = appendMember(b, "publisher", publisher); publisher != "" {
		b = strconv.AppendUint(append(b, `,"sequence":`...), sequence, 10)
	}
	b = msgopt.AppendMembers(b, &p.Message, msgopt.AppendText)
	return append(appendBytes(b, "body_base64", p.Message.Body), '}'), nil
}

func appendMember(b []byte, name, v string) []byte {
	if v == "" {
		return b
	}
	return msgopt.AppendText(append(append(append(b, `,"`...), name...), `":`...), v)
}

func appendBytes(b []byte, name string, v []byte) []byte {
	b = append(append(append(b, `,"`...), name...), `":"`...)
	return append(base64.StdEncoding.AppendEncode(b, v), '"')
}

// wireMessage is a message in the server's JSON.
type wireMessage struct {
	ID          string          `json:"id"`
	Receipt     string          `json:"receipt"`
	Queue       string          `json:"queue"`
	Vhost       string          `json:"vhost"`
	Fencing     int64           `json:"fencing_token,string"`
	Time        time.Time       `json:"time"`
	Attempt     int             `json:"attempt"`
	Redelivered bool            `json:"redelivered"`
	Deadline    time.Time       `json:"deadline"`
	State       surgetank.State `json:"state"`
	Damage      string          `json:"damage"`
	Due         time.Time       `json:"due"`
	Failure     string          `json:"failure"`
	Waiting     string          `json:"waiting"`
	msgopt.Shape
	Deaths     []surgetank.Death `json:"deaths"`
	Body       json.RawMessage   `json:"body"`
	BodyBase64 []byte            `json:"body_base64"`
}

func (w *wireMessage) delivery() (d surgetank.Delivery, err error) {
	if d.Message, err = w.Message(); err != nil {
		return d, surgetank.Errorf(surgetank.CodeInternal, "the server sent a message that cannot be read: %w", err)
	}
	d.Body = w.BodyBase64
	if w.Body != nil {
		d.Body = w.Body
	}
	d.Time, d.Attempt, d.Redelivered, d.Deadline, d.Deaths, d.State, d.Damage = w.Time, w.Attempt, w.Redelivered, w.Deadline, w.Deaths, w.State, w.Damage
	d.FencingToken = w.Fencing
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
