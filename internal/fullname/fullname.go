// Package fullname forms and splits the full names of queues. A full name has a virtual host and a
// queue. The Broker interface and the log know queues by their full names.
package fullname

import (
	"strings"

	"github.com/surgetank/surgetank"
)

// mark separates virtual host and queue. No name may contain this control character, so a full name
// cannot be forged.
const mark = "\x1f"

// DefaultVhost is the virtual host whose queues have plain names.
const DefaultVhost = "/"

// Of returns the full name of a virtual host's queue.
func Of(vhost, queue string) string {
	if vhost == DefaultVhost {
		return queue
	}
	return vhost + mark + queue
}

// Split splits a full name into virtual host and queue.
func Split(full string) (vhost, queue string) {
	if v, q, ok := strings.Cut(full, mark); ok {
		return v, q
	}
	return DefaultVhost, full
}

// Validate returns CodeInvalid if a part of a full name breaks the rules of surgetank.ValidateName.
func Validate(full string) error {
	vhost, queue := Split(full)
	if err := surgetank.ValidateName("virtual host", vhost); err != nil {
		return err
	}
	return surgetank.ValidateName("queue", queue)
}
