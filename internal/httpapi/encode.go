package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/msgopt"
	"github.com/surgetank/surgetank/internal/settings"
)

// appendDelivery writes a message as JSON. A JSON body is included unchanged, byte for byte. Any
// other body becomes body_base64.
func appendDelivery(b []byte, d *surgetank.Delivery) []byte {
	b = appendID(append(b, `{"id":`...), d.ID)
	if d.Receipt != (surgetank.Receipt{}) {
		b = append(b, `,"receipt":"`...)
		b = append(b, d.Receipt.String()...)
		b = append(b, '"')
	}
	if d.FencingToken != 0 { // written as text, because many JSON readers keep only 53 bits of a number
		b = append(strconv.AppendInt(append(b, `,"fencing_token":"`...), d.FencingToken, 10), '"')
	}
	vhost, queue := fullname.Split(d.Queue)
	b = appendMember(b, "queue", queue)
	if vhost != fullname.DefaultVhost {
		b = appendMember(b, "vhost", vhost)
	}
	b = appendTime(b, "time", d.Time)
	b = append(b, `,"attempt":`...)
	b = strconv.AppendInt(b, int64(d.Attempt), 10)
	if d.Redelivered {
		b = append(b, `,"redelivered":true`...)
	}
	b = appendTime(b, "deadline", d.Deadline)
	b = appendMember(b, "state", string(d.State))
	b = appendMember(b, "damage", d.Damage)
	b = appendTime(b, "due", d.Due)
	b = appendMember(b, "failure", d.Failure)
	b = appendMember(b, "waiting", d.Waiting)
	b = msgopt.AppendMembers(b, &d.Message, appendString)
	if len(d.Deaths) > 0 {
		if deaths, err := json.Marshal(d.Deaths); err == nil { // only strings, times and numbers: never fails
			b = append(append(b, `,"deaths":`...), deaths...)
		}
	}
	if d.Damage != "" {
		return append(b, '}') // a damaged body cannot be shown
	}
	if isJSON(d.Body, maxBodyDepth) {
		b = append(append(b, `,"body":`...), d.Body...)
	} else {
		b = appendBase64(b, "body_base64", d.Body)
	}
	return append(b, '}')
}

// appendMember writes a text member unless the text is empty.
func appendMember(b []byte, name, v string) []byte {
	if v == "" {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return appendString(b, v)
}

func appendTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":"`...)
	return append(t.UTC().AppendFormat(b, time.RFC3339Nano), '"')
}

func appendDuration(b []byte, name string, d time.Duration) []byte {
	if d == 0 {
		return b
	}
	return appendMember(b, name, settings.FormatDuration(d))
}

func appendBase64(b []byte, name string, v []byte) []byte {
	b = append(append(append(b, `,"`...), name...), `":"`...)
	return append(base64.StdEncoding.AppendEncode(b, v), '"')
}

// appendString writes a JSON string. Invalid UTF-8, which another door may have accepted, becomes
// U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			b = append(append(b, s[start:i]...), `\ufffd`...)
			i++
			start = i
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

// appendDeliveries writes a list of messages.
func appendDeliveries(b []byte, list []surgetank.Delivery) []byte {
	b = append(b, `{"messages":[`...)
	for i := range list {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = appendDelivery(b, &list[i])
	}
	return append(b, ']')
}
