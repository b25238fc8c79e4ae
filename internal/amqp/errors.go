package amqp

import (
	"errors"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// toWire gives an error of the broker or of auth in AMQP's words; it is the one table of codes. Places that know more
// (which queue was not found, who may not) say so before it comes to this.
func toWire(err error) *wire.Error {
	var w *wire.Error
	if errors.As(err, &w) {
		return w
	}
	code := wire.CodeInternalError
	switch surgetank.CodeOf(err) {
	case surgetank.CodeNotFound:
		code = wire.CodeNotFound
	case surgetank.CodeDenied:
		code = wire.CodeAccessRefused
	case surgetank.CodeInvalid, surgetank.CodeExists, surgetank.CodeTooLarge, surgetank.CodeLeaseLost,
		surgetank.CodeBusy, surgetank.CodeFull:
		code = wire.CodePreconditionFailed
	case surgetank.CodeClosed:
		code = wire.CodeConnectionForced
	}
	return wire.Errorf(code, "%s", err)
}

// Errors that several methods raise.

func describeQueue(name, vhost string) string {
	return "queue '" + name + "' in vhost '" + vhost + "'"
}

func describeExchange(name, vhost string) string {
	return "exchange '" + name + "' in vhost '" + vhost + "'"
}

func (vh *vhost) noQueue(name string) error {
	return wire.Errorf(wire.CodeNotFound, "no %s", describeQueue(name, vh.name))
}

func (vh *vhost) noExchange(name string) error {
	return wire.Errorf(wire.CodeNotFound, "no %s", describeExchange(name, vh.name))
}

func (vh *vhost) locked(name string) error {
	return wire.Errorf(wire.CodeResourceLocked, "cannot obtain exclusive access to locked %s. It could be originally declared on "+
		"another connection or the exclusive property value does not match that of the original declaration.", describeQueue(name, vh.name))
}

var errDefaultExchange = wire.Errorf(wire.CodeAccessRefused, "operation not permitted on the default exchange")
