package httpapi

import (
	"errors"
	"net/http"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// An answer with messages stays in memory until its client has read it. A slow client may need
// minutes. Limits.MaxAnswers limits the memory of all such answers. At the limit, messages are
// returned to their queue without counting an attempt, and the client gets a "busy" answer.

// errUnsent says that an answer was begun and could not be sent, so the client cannot be told.
var errUnsent = errors.New("the answer could not be sent")

// unsent returns the error of respondMessages that must still be answered, if any.
func unsent(err error) error {
	if errors.Is(err, errUnsent) {
		return nil
	}
	return err
}

func errAnswers() error {
	return &surgetank.Error{Code: surgetank.CodeBusy, RetryAfter: defaultRetryAfter, Err: errMemory,
		Message: "the memory for answers that clients have not read is used up; try again in a moment"}
}

// answersFree refuses to fetch messages while there is no memory for an answer.
func (c *call) answersFree() error {
	if a := &c.api.answers; a.used.Load() >= a.max {
		return errAnswers()
	}
	return nil
}

// answerSize estimates the size of a message in an answer: the body in base64, its properties, and
// the fixed part.
func answerSize(d *surgetank.Delivery) int {
	n := len(d.Body)*4/3 + len(*door.Opaque(&d.Message))*4/3 + 512 + 512*len(d.Deaths)
	for _, h := range d.Headers {
		n += len(h.Name) + len(h.Value) + 32
	}
	return n
}

func closeObject(b []byte) []byte { return append(b, "}\n"...) }

// respondMessages sends messages, followed by the text that end adds. It frees each body of list as
// soon as the answer contains the body; receipts stay. If settled is true, the messages cannot be
// returned to the queue, so they are sent even beyond the limit. After an error other than
// errUnsent nothing was sent.
func (c *call) respondMessages(list []surgetank.Delivery, settled bool, end func([]byte) []byte) error {
	size := 64
	for i := range list {
		size += answerSize(&list[i])
	}
	held := &c.api.answers
	if n := held.used.Add(int64(size)); n > held.max && n > int64(size) && !settled { // a single answer may exceed the limit
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
