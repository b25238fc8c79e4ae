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

func (ch *channel) exchangeBind(m *wire.ExchangeBind) error {
	c, vh := ch.c, ch.c.vhost()
	src, dst := translate.CleanName(m.Source), translate.CleanName(m.Destination)
	if src == "" || dst == "" {
		return errDefaultExchange
	}
	if err := c.authorize(auth.Write, "exchange", dst); err != nil {
		return err
	}
	if err := c.authorize(auth.Read, "exchange", src); err != nil {
		return err
	}
	if err := c.authorizeTopic(auth.Read, vh.Exchange(src), m.RoutingKey); err != nil {
		return err
	}
	if err := vh.BindExchange(src, dst, m.RoutingKey, m.Arguments); err != nil {
		return err
	}
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeBindOk))
	return nil
}

func (ch *channel) exchangeUnbind(m *wire.ExchangeUnbind) error {
	c, vh := ch.c, ch.c.vhost()
	src, dst := translate.CleanName(m.Source), translate.CleanName(m.Destination)
	if src == "" || dst == "" {
		return errDefaultExchange
	}
	if err := c.authorize(auth.Write, "exchange", dst); err != nil {
		return err
	}
	if err := c.authorize(auth.Read, "exchange", src); err != nil {
		return err
	}
	if err := c.authorizeTopic(auth.Read, vh.Exchange(src), m.RoutingKey); err != nil {
		return err
	}
	vh.UnbindExchange(src, dst, m.RoutingKey, m.Arguments)
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDExchangeUnbindOk))
	return nil
}

var errDefaultExchange = wire.Errorf(wire.CodeAccessRefused, "operation not permitted on the default exchange")
