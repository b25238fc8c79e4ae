package translate

import (
	"errors"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// ToWire gives an error of the broker or of auth in AMQP's words; it is the one table of codes.
// Places that know more (which queue was not found, who may not) say so before it comes to this.
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
		surgetank.CodeBusy, surgetank.CodeFull:
		code = wire.CodePreconditionFailed
	case surgetank.CodeClosed:
		code = wire.CodeConnectionForced
	}
	return wire.Errorf(code, "%s", err)
}

// DescribeQueue names a queue as RabbitMQ's reply texts do.
func DescribeQueue(name, vhost string) string {
	return "queue '" + name + "' in vhost '" + vhost + "'"
}

// DescribeExchange names an exchange as RabbitMQ's reply texts do.
func DescribeExchange(name, vhost string) string {
	return "exchange '" + name + "' in vhost '" + vhost + "'"
}
