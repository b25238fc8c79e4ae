package hostile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// Bystander is a normal connection that publishes with confirms and consumes its messages one after
// the other, while hostile clients work. They must not disturb the bystander.
type Bystander struct {
	stop chan struct{}
	done chan error
	once sync.Once

	messages int // written by the bystander's goroutine; read it only after done
}

// Watch starts a bystander.
func (s AMQP) Watch() (*Bystander, error) {
	p, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("the bystander: %w", err)
	}
	const name = "bystander"
	for _, m := range []struct {
		b         []byte
		class, id uint16
	}{
		{channelOpen(1), channel, 11}, {declare(1, name, exclusive, nil), queue, 11}, {method(1, confirm, 10, uint8(0)), confirm, 11},
		{method(1, basic, 20, uint16(0), name, "tag", uint8(0), table(nil)), basic, 21},
	} {
		if err := p.ask(1, m.b, m.class, m.id); err != nil {
			return nil, errors.Join(fmt.Errorf("the bystander: %w", err), p.conn.Close())
		}
	}
	b := &Bystander{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		defer p.conn.Close()
		for n := 1; ; n++ {
			select {
			case <-b.stop:
				b.done <- p.sync()
				return
			default:
			}
			if err := p.roundTrip(name, n); err != nil {
				b.done <- fmt.Errorf("message %d: %w", n, err)
				return
			}
			b.messages = n
		}
	}()
	return b, nil
}

// roundTrip publishes message n, reads its confirm and its delivery, and acks it.
func (p *Peer) roundTrip(name string, n int) error {
	want := fmt.Sprint("message ", n)
	if err := p.send(publish(1, "", name, noProperties, want)); err != nil {
		return err
	}
	for confirmed, delivered := false, false; !confirmed || !delivered; {
		r, err := p.next()
		switch {
		case err != nil:
			return err
		case r.typ == frameMethod && r.class == basic && r.id == 80 && !confirmed:
			if confirmed = binary.BigEndian.Uint64(r.payload) == uint64(n); !confirmed {
				return fmt.Errorf("confirm of %d", binary.BigEndian.Uint64(r.payload))
			}
		case r.typ == frameMethod && r.class == basic && r.id == 60 && !delivered:
			_, got, err := p.content()
			if err != nil || got != want {
				return fmt.Errorf("delivered %q, %v", got, err)
			}
			delivered = true
			if err := p.send(method(1, basic, 80, uint64(n), uint8(0))); err != nil {
				return err
			}
		default:
			return fmt.Errorf("got %s", r)
		}
	}
	return nil
}

// Stop ends the bystander. It returns how many messages made the round trip, and an error if
// something disturbed it.
func (b *Bystander) Stop() (messages int, err error) {
	b.once.Do(func() { close(b.stop) })
	err = <-b.done
	b.done <- err
	if err == nil && b.messages == 0 {
		err = errors.New("it got no message round")
	}
	return b.messages, err
}
