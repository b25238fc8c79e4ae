package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unsafe"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/input"
	"github.com/surgetank/surgetank/internal/settings"
)

// cutParams reads the parameters that define how a body is divided into messages: ?format=, or
// ?raw=lines for format=lines. Without them ok is false.
func cutParams(get func(string) string) (o input.Options, ok bool, err error) {
	raw, format := get("raw"), get("format")
	if raw != "" && format != "" && format != "lines" {
		return o, false, surgetank.FieldErrorf("format", "raw=lines and format=%.40s contradict each other; leave raw out", format)
	}
	if o.Format, err = input.ParseFormat(format); err != nil {
		return o, false, err
	}
	if o.Comma, err = input.ParseDelimiter(get("delimiter")); err != nil {
		return o, false, err
	}
	return o, raw != "" || format != "", o.Check()
}

// cutType returns the content type of messages that come from a divided body.
func cutType(f input.Format, media string) string {
	if f != input.Lines || slices.Contains(ndjsonTypes, media) {
		return "application/json"
	}
	return bodyType(media)
}

// cut divides a body into messages. The headers apply to each of them.
func (c *call) cut(body *held, queues []string, in input.Options, o *options) ([]surgetank.Publishing, error) {
	limits := &c.api.limits
	in.Max = limits.MaxMessage
	var (
		bodies  [][]byte
		numbers []uint64
		err     error
	)
	if len(body.data) == 0 {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the body is empty; send one message a line")
	}
	if in.Format == input.Lines {
		bodies, numbers, err = c.api.lines(body, o.dedupPrefix != "")
	} else {
		bodies, numbers, err = c.api.records(body, in)
	}
	if err != nil {
		return nil, err
	}
	n := len(bodies)
	if n == 0 {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the body holds no message: it has no line that is not empty, or no value or row")
	}
	// The headers are stored with every line, so a small request must not become a huge one.
	each := len(o.dedupPrefix) + len(o.message.Group) + len(o.message.Key)
	for _, h := range o.message.Headers {
		each += len(h.Name) + len(h.Value)
	}
	if int64(each)*int64(n) > limits.MaxBody {
		return nil, surgetank.Errorf(surgetank.CodeTooLarge, "the Surgetank-* headers, stored with each of %d lines, have more than %s together; send fewer lines at once",
			n, settings.FormatSize(limits.MaxBody))
	}
	msgs, ids := make([]surgetank.Publishing, n), lineIDs(o, numbers)
	for i := range msgs {
		p := &msgs[i]
		p.Queues, p.Message = queues, o.message
		p.Message.Body = bodies[i]
		if ids != nil {
			p.Message.DedupID = ids[i]
		}
	}
	return msgs, nil
}

// lines divides a body at its line ends. The lines share the body's memory. With numbered it also
// returns their numbers, from 0. Empty lines are counted but are no messages.
func (a *API) lines(body *held, numbered bool) (list [][]byte, numbers []uint64, err error) {
	data, err := a.text(body)
	if err != nil {
		return nil, nil, err
	}
	list = make([][]byte, 0, min(bytes.Count(data, []byte{'\n'})+1, a.limits.MaxLines))
	for number := uint64(0); len(data) > 0; number++ {
		line := data
		if end := bytes.IndexByte(data, '\n'); end >= 0 {
			line, data = data[:end:end], data[end+1:]
		} else {
			data = nil
		}
		one, e := input.Line(line, input.Lines)
		switch {
		case e != nil:
			return nil, nil, inLine(int(number)+1, e)
		case len(one) == 0:
			continue
		case len(one) > a.limits.MaxMessage:
			return nil, nil, &lineError{int(number) + 1, &surgetank.Error{Code: surgetank.CodeTooLarge, Field: "line",
				Message: fmt.Sprintf("line %d has %d bytes; at most %s are allowed", number+1, len(one), settings.FormatSize(int64(a.limits.MaxMessage)))}}
		case len(list) == a.limits.MaxLines:
			return nil, nil, a.tooManyLines()
		}
		list = append(list, one)
		if numbered {
			numbers = append(numbers, number)
		}
	}
	return list, numbers, nil
}

// text returns a body as UTF-8.
func (a *API) text(body *held) ([]byte, error) {
	data, err := input.Text(body.data)
	if err != nil {
		return nil, err
	}
	if cap(data) > cap(body.data) { // the body was UTF-16 and is larger now
		if err := body.more(int64(cap(data))); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// records divides a body in another format than lines.
func (a *API) records(body *held, in input.Options) (list [][]byte, numbers []uint64, err error) {
	r := input.NewReader(bytes.NewReader(body.data), in)
	total, taken := int64(0), int64(0)
	for {
		m, err := r.Next()
		var e *input.LineError
		switch {
		case errors.Is(err, io.EOF):
			return list, numbers, nil
		case errors.As(err, &e):
			return nil, nil, inLine(int(e.Line), e.Err)
		case err != nil:
			return nil, nil, err
		case len(list) == a.limits.MaxLines:
			return nil, nil, a.tooManyLines()
		}
		// Every message of a CSV contains the names of the columns.
		if total += int64(len(m.Body)); total > a.limits.MaxBody {
			return nil, nil, surgetank.Errorf(surgetank.CodeTooLarge, "the messages of the body have more than %s together; send fewer at once", settings.FormatSize(a.limits.MaxBody))
		}
		if total > taken {
			const step = 256 << 10
			if err := body.more(total - taken + step); err != nil {
				return nil, nil, err
			}
			taken = total + step
		}
		list, numbers = append(list, m.Body), append(numbers, uint64(m.N)-1)
	}
}

// lineIDs makes the dedup ids of numbered lines in one piece of memory. It returns nil if no ids
// are needed.
func lineIDs(o *options, numbers []uint64) []string {
	if o.dedupPrefix == "" {
		return nil
	}
	buf := make([]byte, 0, len(numbers)*(len(o.dedupPrefix)+8))
	ends := make([]int, len(numbers))
	for i, n := range numbers {
		buf = append(buf, o.dedupPrefix...)
		buf = strconv.AppendUint(buf, o.dedupFirst+n, 10)
		ends[i] = len(buf)
	}
	all := unsafe.String(unsafe.SliceData(buf), len(buf)) // buf is not written again
	ids, start := make([]string, len(numbers)), 0
	for i, end := range ends {
		ids[i], start = all[start:end], end
	}
	return ids
}
