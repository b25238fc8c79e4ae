package topology

import (
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// NoQueue returns the error for a queue that does not exist.
func (vh *Vhost) NoQueue(name string) error {
	return wire.Errorf(wire.CodeNotFound, "no %s", translate.DescribeQueue(name, vh.Name))
}

// NoExchange returns the error for an exchange that does not exist.
func (vh *Vhost) NoExchange(name string) error {
	return wire.Errorf(wire.CodeNotFound, "no %s", translate.DescribeExchange(name, vh.Name))
}

// Locked returns the error for a queue that is exclusive to another connection.
func (vh *Vhost) Locked(name string) error {
	return wire.Errorf(wire.CodeResourceLocked, "cannot obtain exclusive access to locked %s. It could be originally declared on "+
		"another connection or the exclusive property value does not match that of the original declaration.", translate.DescribeQueue(name, vh.Name))
}
