package session

import (
	"strings"

	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
)

func (ch *channel) exchangeDeclare(m *wire.ExchangeDeclare) error {
	c, vh := ch.c, ch.c.vhost()
	name := translate.CleanName(m.Exchange)
	if m.Passive {
		if name == "" {
			return errDefaultExchange
		}
		if vh.Exchange(name) == nil {
			return vh.NoExchange(name)
		}
		ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeDeclareOk))
		return nil
	}
	if !topology.RoutingKind(m.Type) && m.Type != topology.KindDelayed {
		return wire.Errorf(wire.CodeCommandInvalid, "unknown exchange type '%s'", m.Type)
	}
	if name == "" {
		return errDefaultExchange
	}
	if err := c.authorize(auth.Configure, "exchange", name); err != nil {
		return err
	}
	err := vh.DeclareExchange(name, m, func(alternate string) error {
		if err := c.authorize(auth.Read, "exchange", name); err != nil {
			return err
		}
		return c.authorize(auth.Write, "exchange", translate.ResourceName(alternate))
	})
	if err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeDeclareOk))
	return nil
}

func (ch *channel) exchangeDelete(m *wire.ExchangeDelete) error {
	c, vh := ch.c, ch.c.vhost()
	name := translate.CleanName(m.Exchange)
	if name == "" {
		return errDefaultExchange
	}
	if strings.HasPrefix(name, translate.ReservedPrefix) {
		return wire.Errorf(wire.CodeAccessRefused, "deletion of system %s not allowed", translate.DescribeExchange(name, vh.Name))
	}
	if err := c.authorize(auth.Configure, "exchange", name); err != nil {
		return err
	}
	if err := vh.DeleteExchange(name, m.IfUnused); err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeDeleteOk))
	return nil
}

// boundExchanges checks that the user may bind one exchange to another, or unbind it. It returns
// their names.
func (ch *channel) boundExchanges(source, destination, key string) (src, dst string, err error) {
	c := ch.c
	if src, dst = translate.CleanName(source), translate.CleanName(destination); src == "" || dst == "" {
		return "", "", errDefaultExchange
	}
	if err := c.authorize(auth.Write, "exchange", dst); err != nil {
		return "", "", err
	}
	if err := c.authorize(auth.Read, "exchange", src); err != nil {
		return "", "", err
	}
	return src, dst, c.authorizeTopic(auth.Read, c.vhost().Exchange(src), key)
}

func (ch *channel) exchangeBind(m *wire.ExchangeBind) error {
	vh := ch.c.vhost()
	src, dst, err := ch.boundExchanges(m.Source, m.Destination, m.RoutingKey)
	if err != nil {
		return err
	}
	if err := vh.BindExchange(src, dst, m.RoutingKey, m.Arguments); err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeBindOk))
	return nil
}

func (ch *channel) exchangeUnbind(m *wire.ExchangeUnbind) error {
	vh := ch.c.vhost()
	src, dst, err := ch.boundExchanges(m.Source, m.Destination, m.RoutingKey)
	if err != nil {
		return err
	}
	vh.UnbindExchange(src, dst, m.RoutingKey, m.Arguments)
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeUnbindOk))
	return nil
}

var errDefaultExchange = wire.Errorf(wire.CodeAccessRefused, "operation not permitted on the default exchange")
