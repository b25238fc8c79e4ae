package hostile

import (
	"errors"
	"fmt"
)

// Limits are a server's documented limits for clients. A limit of 0 is not tested.
type Limits struct {
	Channels  uint16 // per connection
	Consumers int    // per channel
	Exchanges int    // per virtual host
	Bindings  int    // per exchange
	Queues    int    // not a limit: number of queues to declare and delete
}

// Churn creates things of each kind up to their limit, and one more. The server must refuse the
// last one with the right code and keep the others. Then Churn deletes everything. It does not wait
// for the server's clean-up: a caller that checks the server's figures must wait.
func (s AMQP) Churn(l Limits) error {
	for _, try := range []struct {
		what string
		n    int
		run  func(p *Peer, n int) error
	}{
		{"channels", int(l.Channels), nil}, {"consumers", l.Consumers, takeConsumers}, {"exchanges", l.Exchanges, takeExchanges},
		{"bindings", l.Bindings, takeBindings}, {"queues", l.Queues, takeQueues},
	} {
		if try.n == 0 {
			continue
		}
		var err error
		if try.run == nil {
			err = s.takeChannels(uint16(try.n))
		} else {
			err = s.with(func(p *Peer) error { return try.run(p, try.n) })
		}
		if err != nil {
			return fmt.Errorf("taking all %d %s: %w", try.n, try.what, err)
		}
	}
	return nil
}

// with runs f on a connection with channel 1, which is then closed in order.
func (s AMQP) with(f func(p *Peer) error) error {
	p, err := s.open()
	if err != nil {
		return err
	}
	defer p.conn.Close()
	if err := p.ask(1, channelOpen(1), channel, 11); err != nil {
		return err
	}
	if err := f(p); err != nil {
		return err
	}
	return p.sync()
}

func (s AMQP) takeChannels(n uint16) error {
	p, err := s.dial()
	if err != nil {
		return err
	}
	defer p.conn.Close()
	if err := errors.Join(p.send(join([]byte(protocolHeader), startOk(capable, "PLAIN", plain(s.User, s.Password)),
		tuneOk(n, frameMax, 0), connectionOpen("/"))), p.opened()); err != nil {
		return err
	}
	for ch := uint16(1); ch <= n; ch++ {
		if err := p.ask(ch, channelOpen(ch), channel, 11); err != nil {
			return err
		}
	}
	if err := p.send(channelOpen(n + 1)); err != nil {
		return err
	}
	return p.refused(closes(504, "above the negotiated channel_max"))
}

// reopened closes channel 1 if needed and opens it again.
func (p *Peer) reopened() error {
	if err := p.send(method(1, channel, 41)); err != nil {
		return err
	}
	return p.ask(1, channelOpen(1), channel, 11)
}

func takeConsumers(p *Peer, n int) error {
	if err := p.ask(1, declareQ, queue, 11); err != nil {
		return err
	}
	for i := range n + 1 { // no answer is requested
		if err := p.send(method(1, basic, 20, uint16(0), q, fmt.Sprint("tag", i), uint8(8), table(nil))); err != nil {
			return err
		}
	}
	if err := p.refused(refuses(406, fmt.Sprintf("the channel has %d consumers already", n))); err != nil {
		return err
	}
	return p.reopened()
}

// takeExchanges creates exchanges until the virtual host is full. It may already have some.
func takeExchanges(p *Peer, n int) error {
	for i := range n + 1 {
		if err := p.send(method(1, exchange, 10, uint16(0), fmt.Sprint("hostile-", i), "fanout", uint8(16), table(nil))); err != nil {
			return err
		}
	}
	if err := p.refused(refuses(406, "exchanges, which is its limit")); err != nil {
		return err
	}
	if err := p.reopened(); err != nil {
		return err
	}
	for i := range n + 1 {
		if err := p.send(method(1, exchange, 20, uint16(0), fmt.Sprint("hostile-", i), uint8(2))); err != nil {
			return err
		}
	}
	return p.works()
}

// takeBindings creates an exchange and binds to it up to the limit.
func takeBindings(p *Peer, n int) error {
	if err := p.ask(1, declareQ, queue, 11); err != nil {
		return err
	}
	const x = "hostile-x"
	if err := p.ask(1, method(1, exchange, 10, uint16(0), x, "topic", uint8(4), table(nil)), exchange, 11); err != nil {
		return err
	}
	for i := range n + 1 {
		if err := p.send(method(1, queue, 20, uint16(0), q, x, fmt.Sprintf("#.%d.*.#", i), uint8(1), table(nil))); err != nil {
			return err
		}
	}
	if err := p.refused(refuses(406, fmt.Sprintf("has %d bindings, which is its limit", n))); err != nil {
		return err
	}
	if err := p.reopened(); err != nil {
		return err
	}
	return p.ask(1, method(1, exchange, 20, uint16(0), x, uint8(0)), exchange, 21)
}

// takeQueues creates queues with bindings and consumers, which are deleted with the connection.
func takeQueues(p *Peer, n int) error {
	for i := range n {
		name := fmt.Sprintf("%s-%d", q, i)
		m := join(declare(1, name, exclusive, nil), bind(1, name, "amq.topic", "#."+name),
			method(1, basic, 20, uint16(0), name, name, uint8(0), table(nil)))
		if err := p.send(m); err != nil {
			return err
		}
		for _, w := range [][2]uint16{{queue, 11}, {queue, 21}, {basic, 21}} {
			if _, err := p.expect(1, w[0], w[1]); err != nil {
				return err
			}
		}
	}
	return nil
}
