//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/surgetank/surgetank/internal/amqp/wire"
	kit "github.com/surgetank/surgetank/test/kit/server"
)

// floorServer is the server "floor", which stores nothing. It reads frames, confirms each message
// as soon as it has read the message, and forwards the message to a consumer. Its cost is the
// minimum for any AMQP server in Go with this client and these sockets. The additional cost of a
// real server is the cost of queueing and the disk. It supports only this program's workloads, has
// no limits and trusts its client.
type floorServer struct {
	mu        sync.Mutex
	consumers []*floorConsumer
	next      int
}

// floorConsumer is one consumer. Its connection's mu guards it.
type floorConsumer struct {
	c       *floorConn
	channel uint16
	name    string
	tag     uint64
}

// floorConn is one connection. Its reading goroutine writes its replies. The goroutines of
// publishing connections write deliveries to it.
type floorConn struct {
	s  *floorServer
	nc net.Conn

	mu  sync.Mutex
	out []byte // encoded frames that are not yet written

	// Only the reading goroutine uses the following fields.
	tag     uint64 // delivery tag of the newest publish; only one channel of a connection publishes
	told    uint64
	publish wire.Publish
	body    []byte
	size    int
	touched []*floorConn // connections to which the current read adds deliveries
}

// prepareFloor sets up a floorServer in a separate process, so that its CPU time is measured alone.
func prepareFloor(_ *options, dir string) (*server, error) {
	addr, err := kit.FreeAddress()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &server{addr: addr, user: "guest", pass: "guest", dir: dir, argv: []string{self, "-floor", addr}, env: os.Environ()}, nil
}

// serveFloor runs a floorServer until the process is killed.
func serveFloor(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := &floorServer{}
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		c := &floorConn{s: s, nc: nc}
		go func() {
			if err := c.serve(); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintln(os.Stderr, "floor:", err)
			}
			s.forget(c)
			nc.Close()
		}()
	}
}

func (s *floorServer) forget(c *floorConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []*floorConsumer
	for _, fc := range s.consumers {
		if fc.c != c {
			left = append(left, fc)
		}
	}
	s.consumers = left
}

// take returns the next consumer in turn, or nil if there is none.
func (s *floorServer) take() *floorConsumer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.consumers) == 0 {
		return nil
	}
	s.next++
	return s.consumers[s.next%len(s.consumers)]
}

const floorFrameMax = 131072

func (c *floorConn) serve() error {
	header := make([]byte, len(wire.ProtocolHeader))
	if _, err := io.ReadFull(c.nc, header); err != nil {
		return err
	}
	if !bytes.Equal(header, []byte(wire.ProtocolHeader)) {
		return fmt.Errorf("the client began with %q", header)
	}
	c.reply(0, &wire.ConnectionStart{VersionMinor: 9, Mechanisms: []byte("PLAIN"), Locales: []byte("en_US"),
		ServerProperties: wire.Table(nil).AddString("product", "floor").AddString("version", "of an AMQP server in Go")})
	buf, end := make([]byte, 256<<10), 0
	for {
		if err := c.flush(); err != nil {
			return err
		}
		n, err := c.nc.Read(buf[end:])
		if err != nil {
			return err
		}
		end += n
		at := 0
		for {
			f, n, err := wire.NextFrame(buf[at:end], floorFrameMax)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			at += n
			if err := c.frame(f); err != nil {
				return err
			}
		}
		end = copy(buf, buf[at:end])
	}
}

// flush writes the results of one read from the socket: the confirms of the read messages, and
// their deliveries.
func (c *floorConn) flush() error {
	c.mu.Lock()
	if c.tag > c.told {
		c.out = wire.AppendAck(c.out, 1, c.tag, c.tag-c.told > 1)
		c.told = c.tag
	}
	err := c.writeLocked()
	c.mu.Unlock()
	for _, to := range c.touched {
		to.mu.Lock()
		err = errors.Join(err, to.writeLocked())
		to.mu.Unlock()
	}
	c.touched = c.touched[:0]
	return err
}

func (c *floorConn) writeLocked() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *floorConn) reply(channel uint16, m wire.Method) {
	c.mu.Lock()
	c.out = wire.AppendMethod(c.out, channel, m)
	c.mu.Unlock()
}

func (c *floorConn) frame(f wire.Frame) error {
	switch f.Type {
	case wire.FrameMethod:
		return c.method(f)
	case wire.FrameHeader:
		h, err := wire.ParseHeader(f.Payload)
		if err != nil {
			return err
		}
		c.size, c.body = int(h.BodySize), c.body[:0]
	case wire.FrameBody:
		if c.body = append(c.body, f.Payload...); len(c.body) >= c.size {
			c.pass()
		}
	}
	return nil
}

// pass confirms a message that was read completely, and delivers it.
func (c *floorConn) pass() {
	c.tag++
	fc := c.s.take()
	if fc == nil {
		return
	}
	to := fc.c
	to.mu.Lock()
	fc.tag++
	first := len(to.out) == 0
	to.out = wire.AppendDeliver(to.out, fc.channel, fc.name, fc.tag, false, c.publish.Exchange, string(c.publish.RoutingKey))
	to.out = wire.AppendHeader(to.out, fc.channel, len(c.body), []byte{0, 0}) // no properties
	to.out = wire.AppendBody(to.out, fc.channel, c.body, floorFrameMax)
	to.mu.Unlock()
	if first {
		c.touched = append(c.touched, to)
	}
}

func (c *floorConn) method(f wire.Frame) error {
	id, err := wire.MethodIDOf(f.Payload)
	if err != nil {
		return err
	}
	switch id {
	case wire.IDBasicPublish:
		return wire.ParsePublish(f.Payload, &c.publish)
	case wire.IDBasicAck:
		return nil
	}
	m, err := wire.ParseMethod(f.Payload)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.ConnectionStartOk:
		c.reply(0, &wire.ConnectionTune{Tuning: wire.Tuning{ChannelMax: 2047, FrameMax: floorFrameMax, Heartbeat: 60}})
	case *wire.ConnectionOpen:
		c.reply(0, &wire.ConnectionOpenOk{})
	case *wire.ConnectionClose:
		c.reply(0, wire.Bare(wire.IDConnectionCloseOk))
	case *wire.ChannelOpen:
		c.reply(f.Channel, &wire.ChannelOpenOk{})
	case *wire.ChannelClose:
		c.reply(f.Channel, wire.Bare(wire.IDChannelCloseOk))
	case *wire.QueueDeclare:
		c.reply(f.Channel, &wire.QueueDeclareOk{Queue: m.Queue})
	case *wire.ConfirmSelect:
		c.reply(f.Channel, wire.Bare(wire.IDConfirmSelectOk))
	case *wire.BasicQos:
		c.reply(f.Channel, wire.Bare(wire.IDBasicQosOk))
	case *wire.BasicConsume:
		c.reply(f.Channel, &wire.BasicConsumeOk{ConsumerTag: m.ConsumerTag})
		c.s.mu.Lock()
		c.s.consumers = append(c.s.consumers, &floorConsumer{c: c, channel: f.Channel, name: m.ConsumerTag})
		c.s.mu.Unlock()
	case *wire.BasicCancel:
		c.reply(f.Channel, &wire.BasicCancelOk{ConsumerTag: m.ConsumerTag})
	}
	return nil
}
