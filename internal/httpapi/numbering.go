package httpapi

import (
	"net/http"

	"github.com/surgetank/surgetank"
)

// numbering is the publisher of a request, as its headers name it: the publisher's id and the
// number of the first message. The other messages of the request have the numbers after it.
type numbering struct {
	publisher string
	first     uint64
}

// numberingOf reads the headers Surgetank-Publisher and Surgetank-Sequence. Both may be missing.
func numberingOf(h http.Header) (n numbering, err error) {
	for _, name := range []string{publisherHeader, sequenceHeader} {
		if values := h[name]; len(values) > 1 {
			return n, surgetank.FieldErrorf(name, "the header %s is there %d times; send it once", name, len(values))
		}
	}
	id, first := h[publisherHeader], h[sequenceHeader]
	switch {
	case id == nil && first == nil:
		return n, nil
	case id == nil || first == nil:
		return n, surgetank.FieldErrorf(publisherHeader, "%s and %s belong together: the publisher's id, and the number of the first message", publisherHeader, sequenceHeader)
	}
	n.publisher = id[0]
	if n.first, err = checkSequence(sequenceHeader, first[0]); err != nil {
		return n, err
	}
	if n.publisher == "" {
		return n, surgetank.FieldErrorf(publisherHeader, "%s is empty; leave it out or give it a value", publisherHeader)
	}
	if err := surgetank.ValidatePublisher(n.publisher, n.first); err != nil {
		return n, surgetank.FieldErrorf(publisherHeader, "%s: %s", publisherHeader, err)
	}
	return n, nil
}

// number sets the numbers of a request's messages.
func (n numbering) number(msgs []surgetank.Publishing) error {
	if n.publisher == "" {
		return nil
	}
	if err := surgetank.ValidatePublisher(n.publisher, n.first+uint64(len(msgs))); err != nil {
		return surgetank.FieldErrorf(sequenceHeader, "%s: %s", sequenceHeader, err)
	}
	for i := range msgs {
		if msgs[i].Publisher != "" {
			return surgetank.FieldErrorf(publisherHeader, "message %d of the request has a publisher of its own; use the header %s or the member publisher, not both", i+1, publisherHeader)
		}
		msgs[i].Publisher, msgs[i].Sequence = n.publisher, n.first+uint64(i)
	}
	return nil
}
