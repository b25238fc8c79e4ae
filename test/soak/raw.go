//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// rawConn is an AMQP connection that sends and receives plain frames. It has no goroutine and no
// buffer, and reads only inside its methods. It is for one goroutine at a time.
type rawConn struct {
	nc net.Conn
}

const rawFrame = 131072

// dialRaw connects and logs in.
func dialRaw(address string, heartbeat uint16) (*rawConn, error) {
	nc, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	r := &rawConn{nc}
	if err := r.login(heartbeat); err != nil {
		nc.Close()
		return nil, fmt.Errorf("logging in: %w", err)
	}
	return r, nil
}

func (r *rawConn) login(heartbeat uint16) error {
	r.nc.SetDeadline(time.Now().Add(60 * time.Second))
	defer r.nc.SetDeadline(time.Time{})
	if _, err := io.WriteString(r.nc, wire.ProtocolHeader); err != nil {
		return err
	}
	if err := r.expect(wire.IDConnectionStart); err != nil {
		return err
	}
	caps := wire.Table(nil).AddTable("capabilities", wire.Table(nil).AddBool("connection.blocked", true).AddBool("publisher_confirms", true)).
		AddString("product", "a raw client").AddString("platform", "Go").AddString("version", "1").AddString("information", "it misbehaves on purpose")
	err := r.write(wire.AppendMethod(nil, 0, &wire.ConnectionStartOk{ClientProperties: caps, Mechanism: "PLAIN", Response: []byte("\x00guest\x00guest"), Locale: "en_US"}))
	if err == nil {
		err = r.expect(wire.IDConnectionTune)
	}
	if err == nil {
		b := wire.AppendMethod(nil, 0, &wire.ConnectionTuneOk{Tuning: wire.Tuning{ChannelMax: 2047, FrameMax: rawFrame, Heartbeat: heartbeat}})
		err = r.write(wire.AppendMethod(b, 0, &wire.ConnectionOpen{VirtualHost: "/"}))
	}
	if err == nil {
		err = r.expect(wire.IDConnectionOpenOk)
	}
	return err
}

func (r *rawConn) write(b []byte) error {
	_, err := r.nc.Write(b)
	return err
}

// call sends a method on a channel and reads until its answer comes. It ignores all frames before
// the answer.
func (r *rawConn) call(channel uint16, m wire.Method, answer wire.MethodID) error {
	if err := r.write(wire.AppendMethod(nil, channel, m)); err != nil {
		return err
	}
	return r.expect(answer)
}

// expect reads frames until the method want comes.
func (r *rawConn) expect(want wire.MethodID) error {
	for {
		typ, payload, err := r.frame()
		if err != nil {
			return err
		}
		if typ != wire.FrameMethod {
			continue
		}
		switch id, _ := wire.MethodIDOf(payload); id {
		case want:
			return nil
		case wire.IDConnectionClose, wire.IDChannelClose:
			m, err := wire.ParseMethod(payload)
			return fmt.Errorf("the server closed: %+v %w", m, err)
		}
	}
}

// frame reads one frame.
func (r *rawConn) frame() (typ byte, payload []byte, err error) {
	var head [7]byte
	if _, err := io.ReadFull(r.nc, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[3:])
	if n > rawFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n+1)
	_, err = io.ReadFull(r.nc, payload)
	return head[0], payload[:n], err
}

func (r *rawConn) open(channel uint16) error {
	return r.call(channel, &wire.ChannelOpen{}, wire.IDChannelOpenOk)
}

func (r *rawConn) consume(channel uint16, queue string) error {
	return r.call(channel, &wire.BasicConsume{Queue: queue, ConsumerTag: fmt.Sprintf("c%d", channel)}, wire.IDBasicConsumeOk)
}

func (r *rawConn) close() { r.nc.Close() } // an error does not matter
