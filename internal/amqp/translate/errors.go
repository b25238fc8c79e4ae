package translate

import (
	"errors"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// ToWire translates an error of the broker or of auth. It has the only table of codes. Callers that
// know more, such as the queue's name, make their own errors instead.
func ToWire(err error) *wire.Error {
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
		surgetank.CodeBusy, surgetank.CodeFull, surgetank.CodeUnavailable, surgetank.CodeUncertain:
		// The codes of passing errors close only the channel, so the client can try again.
		code = wire.CodePreconditionFailed
	case surgetank.CodeClosed:
		code = wire.CodeConnectionForced
	}
	return wire.Errorf(code, "%s", err)
}

// DescribeQueue returns a queue's name in the form of RabbitMQ's reply texts.
func DescribeQueue(name, vhost string) string {
	return "queue '" + name + "' in vhost '" + vhost + "'"
}

// DescribeExchange returns an exchange's name in the form of RabbitMQ's reply texts.
func DescribeExchange(name, vhost string) string {
	return "exchange '" + name + "' in vhost '" + vhost + "'"
}
