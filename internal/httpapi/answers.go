package httpapi

import (
	"errors"
	"net/http"

	"github.com/surgetank/surgetank"
)

// An answer with messages is in memory until its client has read it, which a slow one may take
// minutes for. All of them together are bounded by Limits.MaxAnswers: beyond it messages go back to
// their queue, uncounted, and the client is told to come again.

// errUnsent says that an answer was begun and could not be sent: there is nobody to tell.
var errUnsent = errors.New("the answer could not be sent")

// unsent gives the error that is left to be answered of respondMessages'.
func unsent(err error) error {
	if errors.Is(err, errUnsent) {
		return nil
	}
	return err
}

func errAnswers() error {
	return &surgetank.Error{Code: surgetank.CodeBusy, RetryAfter: defaultRetryAfter, Err: errMemory,
		Message: "the server holds as many answers that their clients do not read as it may; try again in a moment"}
}

// answersFree refuses to fetch messages while there is no room for an answer.
func (c *call) answersFree() error {
	if a := &c.api.answers; a.used.Load() >= a.max {
		return errAnswers()
	}
	return nil
}

// answerSize is about what a message takes in an answer: its body in base64, its properties, and
// what is always there.
func answerSize(d *surgetank.Delivery) int {
	n := len(d.Body)*4/3 + len(d.Opaque)*4/3 + 512 + 512*len(d.Deaths)
	for _, h := range d.Headers {
		n += len(h.Name) + len(h.Value) + 32
	}
	return n
}

func closeObject(b []byte) []byte { return append(b, "}\n"...) }

// respondMessages sends messages, followed by what end adds. The bodies in list are let go as soon
// as they are in the answer; the receipts stay. With settled the messages cannot be given back, so
// that they are sent even beyond the limit. An error that is not errUnsent has sent nothing.
func (c *call) respondMessages(list []surgetank.Delivery, settled bool, end func([]byte) []byte) error {
	size := 64
	for i := range list {
		size += answerSize(&list[i])
	}
	held := &c.api.answers
	if n := held.used.Add(int64(size)); n > held.max && n > int64(size) && !settled { // one alone may be larger
		held.give(int64(size))
		return errAnswers()
	}
	defer held.give(int64(size))
	b := end(appendDeliveries(make([]byte, 0, size), list))
	for i := range list {
		list[i].Message, list[i].Deaths = surgetank.Message{}, nil // bodies keep whole entries of the log in memory
	}
	if c.respondRaw(http.StatusOK, b) != nil {
		return errUnsent
	}
	return nil
}
