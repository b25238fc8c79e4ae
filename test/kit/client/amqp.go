package client

import (
	"errors"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// AMQP is a connection with one channel.
type AMQP struct {
	Conn *amqp.Connection
	Ch   *amqp.Channel
	nc   net.Conn
}

// Options of a connection over AMQP. The zero value is the user guest and the client's heartbeat.
type Options struct {
	User, Password string
	Heartbeat      time.Duration
	Patience       time.Duration           // limits the dial, and then the handshake; 0: 10 s
	Wrap           func(net.Conn) net.Conn // wraps the socket; nil: no wrapper
}

// Connect opens a connection to an address, HOST:PORT.
func Connect(address string, o Options) (*amqp.Connection, error) {
	conn, _, err := connect(address, o)
	return conn, err
}

func connect(address string, o Options) (conn *amqp.Connection, nc net.Conn, err error) {
	if o.User == "" {
		o.User, o.Password = "guest", "guest"
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	conn, err = amqp.DialConfig("amqp://"+address, amqp.Config{
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: o.User, Password: o.Password}}, Vhost: "/", Heartbeat: o.Heartbeat,
		Dial: func(network, addr string) (net.Conn, error) {
			var err error
			if nc, err = net.DialTimeout(network, addr, o.Patience); err != nil {
				return nil, err
			}
			if err := nc.SetDeadline(time.Now().Add(o.Patience)); err != nil { // limits the handshake; the client removes the limit
				return nil, errors.Join(err, nc.Close())
			}
			if o.Wrap != nil {
				return o.Wrap(nc), nil
			}
			return nc, nil
		}})
	return conn, nc, err
}

// Dial opens a connection and a channel. With confirm the channel confirms publishes.
func Dial(address string, o Options, confirm bool) (*AMQP, error) {
	conn, nc, err := connect(address, o)
	if err != nil {
		return nil, err
	}
	k := &AMQP{Conn: conn, nc: nc}
	if k.Ch, err = conn.Channel(); err == nil && confirm {
		err = k.Ch.Confirm(false)
	}
	if err != nil {
		k.Drop()
		return nil, err
	}
	return k, nil
}

// Close ends a connection in order. A nil connection is no error.
func (k *AMQP) Close() {
	if k != nil {
		_ = k.Conn.CloseDeadline(time.Now().Add(5 * time.Second)) // the connection may already be closed
	}
}

// Drop ends a connection as a crash of its client would.
func (k *AMQP) Drop() {
	if k != nil {
		_ = k.nc.Close() // the connection may already be closed
		_ = k.Conn.CloseDeadline(time.Now().Add(time.Second))
	}
}
