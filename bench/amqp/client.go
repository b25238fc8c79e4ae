//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/histogram"
)

// A body begins with the time of its send, or its scheduled time, in nanoseconds since 1970. The
// message's unique number follows.
const (
	bodyTime = 0
	bodyID   = 8
	bodyHead = 16
)

// messageID combines a publisher's number and the message's number n, which must be below 1<<32.
func messageID(publisher int, n uint64) uint64 { return uint64(publisher)<<32 | n }

// newBody makes a body of random bytes, which cannot be compressed.
func newBody(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// useLean makes connections gather their writes and read large pieces; see leanConn.
var useLean bool

// dial opens a connection.
func (s *server) dial() (*amqp.Connection, error) {
	o := client.Options{User: s.user, Password: s.pass, Heartbeat: time.Minute, Patience: 30 * time.Second}
	if useLean {
		o.Wrap = func(c net.Conn) net.Conn { return newLeanConn(c) }
	}
	return client.Connect(s.addr, o)
}

// open opens a connection with a channel.
func (s *server) open() (*amqp.Connection, *amqp.Channel, error) {
	conn, err := s.dial()
	if err != nil {
		return nil, nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, ch, nil
}

// product returns the server's name and version from its connection.start. Surgetank sends
// "RabbitMQ" as the product, because some clients need that name, and also sends its own name.
func (s *server) product() string {
	conn, err := s.dial()
	if err != nil {
		return ""
	}
	defer conn.Close()
	if own, ok := conn.Properties["surgetank"].(string); ok {
		return "Surgetank " + own
	}
	name, _ := conn.Properties["product"].(string)
	version, _ := conn.Properties["version"].(string)
	return name + " " + version
}

// declare makes durable queues. It empties queues that exist on an external server.
func (s *server) declare(queues []string, args amqp.Table) error {
	conn, ch, err := s.open()
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, q := range queues {
		if _, err := ch.QueueDeclare(q, true, false, false, false, args); err != nil {
			return fmt.Errorf("declaring %s: %w", q, err)
		}
		if s.external() {
			if _, err := ch.QueuePurge(q, false); err != nil {
				return fmt.Errorf("purging %s: %w", q, err)
			}
		}
	}
	return nil
}

// publisher publishes persistent messages on a connection of its own. At most window messages are
// unconfirmed. One goroutine publishes, and another receives the confirms. amqp091-go passes the
// confirms one by one in publish order.
type publisher struct {
	conn     *amqp.Connection
	ch       *amqp.Channel
	confirms chan amqp.Confirmation
	window   int
	slots    chan struct{}  // contains one token for each unconfirmed message
	sentAt   []atomic.Int64 // send times, by delivery tag modulo window
	tag      uint64         // delivery tag of the newest message

	recording *atomic.Bool        // while true, confirms are counted and timed
	confirmed atomic.Int64        // number of confirms while recording
	latency   histogram.Histogram // of the recorded confirms; read it after ended is closed
	acked     atomic.Int64        // number of all confirms, recording or not
	refused   atomic.Int64
	ended     chan struct{} // closed after the last confirm
}

func (s *server) newPublisher(window int, recording *atomic.Bool) (*publisher, error) {
	conn, ch, err := s.open()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p := &publisher{
		conn: conn, ch: ch, window: window, slots: make(chan struct{}, window), sentAt: make([]atomic.Int64, window),
		confirms: ch.NotifyPublish(make(chan amqp.Confirmation, window)), recording: recording, ended: make(chan struct{}),
	}
	if window == 1 {
		close(p.ended) // there is no receiving goroutine: publish waits for each confirm
	} else {
		go p.takeConfirms()
	}
	return p, nil
}

// publish waits for room in the window and sends one message. With a window of 1 it also waits for
// the confirm. The caller may reuse body afterwards.
func (p *publisher) publish(queue string, body []byte, id uint64, due time.Time, stop <-chan struct{}) error {
	if p.window > 1 {
		select {
		case p.slots <- struct{}{}:
		default:
			select {
			case p.slots <- struct{}{}:
			case <-stop:
				return nil
			case <-p.ended:
				return errConnectionLost
			}
		}
	}
	if due.IsZero() {
		due = time.Now()
	}
	binary.LittleEndian.PutUint64(body[bodyTime:], uint64(due.UnixNano()))
	binary.LittleEndian.PutUint64(body[bodyID:], id)
	p.tag++
	p.sentAt[p.tag%uint64(p.window)].Store(due.UnixNano())
	if err := p.ch.Publish("", queue, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: body}); err != nil {
		return err
	}
	if p.window == 1 {
		c, ok := <-p.confirms
		if !ok {
			return errConnectionLost
		}
		p.take(c)
	}
	return nil
}

var errConnectionLost = errors.New("the server closed the connection")

func (p *publisher) take(c amqp.Confirmation) {
	if !c.Ack {
		p.refused.Add(1)
		return
	}
	p.acked.Add(1)
	if p.recording.Load() {
		p.confirmed.Add(1)
		p.latency.Add(time.Duration(time.Now().UnixNano() - p.sentAt[c.DeliveryTag%uint64(p.window)].Load()))
	}
}

func (p *publisher) takeConfirms() {
	defer close(p.ended)
	for c := range p.confirms {
		p.take(c)
		<-p.slots
	}
}

// close waits until all messages are confirmed, at most limit, and closes the connection.
func (p *publisher) close(limit time.Duration) error {
	timeout := time.After(limit)
	var late error
wait:
	for range cap(p.slots) {
		select {
		case p.slots <- struct{}{}:
		case <-p.ended:
			break wait
		case <-timeout:
			late = fmt.Errorf("messages were still unconfirmed %v after the last was sent", limit)
			break wait
		}
	}
	err := p.conn.CloseDeadline(time.Now().Add(10 * time.Second))
	<-p.ended
	if errors.Is(err, amqp.ErrClosed) {
		err = nil
	}
	return errors.Join(late, err)
}

// consumer receives from one queue on a connection of its own. It acks every message separately, as
// most users do.
type consumer struct {
	conn  *amqp.Connection
	ended chan struct{}
	err   error // why it ended without close; read it after ended is closed
}

// consume starts a consumer. One goroutine calls handle before each ack. handle must not keep the
// body.
func (s *server) consume(queue string, prefetch int, handle func(body []byte)) (*consumer, error) {
	conn, ch, err := s.open()
	if err != nil {
		return nil, err
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c := &consumer{conn: conn, ended: make(chan struct{})}
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		defer close(c.ended)
		for d := range deliveries {
			if len(d.Body) < bodyHead {
				continue // another program's message; it stays unacked
			}
			handle(d.Body)
			if err := d.Ack(false); err != nil {
				break
			}
		}
		if e := <-closed; e != nil {
			c.err = e
		}
	}()
	return c, nil
}

func (c *consumer) close() error {
	err := c.conn.CloseDeadline(time.Now().Add(10 * time.Second))
	if errors.Is(err, amqp.ErrClosed) {
		return nil
	}
	return err
}
