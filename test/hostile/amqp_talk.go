package hostile

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// talks are the cases that need more than one answer.
var talks = []Case{
	{71, "a good session, to be cut", open, raw(session), Answer{kind: goesOn}, playSession},
	{72, "a good session, to be sent byte by byte", open, raw(session), Answer{kind: goesOn}, func(s AMQP, p *Peer) error {
		p.slow = true
		return playSession(s, p)
	}},
	{73, "contents of two channels interleaved", open, raw(interleaved), Answer{kind: goesOn}, playInterleaved},
	{74, "channel.close-ok never sent", open, raw(unclosed), Answer{kind: goesOn}, playUnclosed},
	{75, "a million declarations, replies unread", open, nil, Answer{kind: goesOn}, playUnread},
	{77, "consume and cancel storm", open, raw(storm(100)), Answer{kind: goesOn}, playStorm},
	{79, "odd values", open, onQ(message(withHeaders(odd))), Answer{kind: goesOn}, playOdd},
	{80, "forged reply address", open, on(forged), Answer{kind: goesOn}, playForged},
	{82, "255 dots against #.#.#", open, on(dots), Answer{kind: goesOn}, playDots},
	{83, "heartbeat 0", early, nil, Answer{kind: goesOn}, playHeartbeat(0)},
	{83, "heartbeat 65535", early, nil, Answer{kind: goesOn}, playHeartbeat(65535)},
	{85, "update-secret to another user", open, raw(otherSecret), Answer{kind: goesOn}, playOtherSecret},
}

// topic is an exchange that is deleted with its last queue.
const topic = q + "-topic"

var declareTopic = method(1, exchange, 10, uint16(0), topic, "topic", uint8(4), table(nil))

// session uses most of the features that clients use.
var session = join(channelOpen(1), declareTopic, declare(1, q, exclusive, table(nil).long("x-max-length", 10)),
	bind(1, q, topic, "a.#"), method(1, confirm, 10, uint8(0)), publish(1, topic, "a.b", withHeaders(table(nil).text("k", "v")), "one"),
	publishMethod(1, "", q), contentHeader(1, basic, 0, 6, noProperties), body(1, "two"), body(1, "two"),
	method(1, basic, 10, uint32(0), uint16(5), uint8(0)), method(1, basic, 20, uint16(0), q, "tag", uint8(0), table(nil)),
	method(1, basic, 30, "tag", uint8(0)))

func playSession(_ AMQP, p *Peer) error {
	if err := p.send(session); err != nil {
		return err
	}
	for _, w := range [][2]uint16{{channel, 11}, {exchange, 11}, {queue, 11}, {queue, 21}, {confirm, 11}} {
		if _, err := p.expect(1, w[0], w[1]); err != nil {
			return err
		}
	}
	// Confirms, deliveries and other answers can come in any order.
	seen := map[string]bool{}
	for !seen["60.31"] {
		r, err := p.next()
		if err != nil {
			return err
		}
		if r.typ == frameMethod {
			seen[fmt.Sprintf("%d.%d", r.class, r.id)] = true
		}
	}
	if !seen["60.21"] || !seen["60.11"] {
		return fmt.Errorf("the answers were %v", seen)
	}
	// This case only checks that the connection still answers in order; other tests check what a
	// confirm means.
	return p.sync()
}

// sync closes the connection in order, and skips all frames before the answer.
func (p *Peer) sync() error {
	if err := p.send(connectionClose()); err != nil {
		return err
	}
	for {
		r, err := p.next()
		if err != nil {
			return err
		}
		if r.typ == frameMethod && r.class == connection {
			if r.id != 51 {
				return fmt.Errorf("got %s", r)
			}
			return p.hangUp()
		}
	}
}

var interleaved = join(channelOpen(1), channelOpen(2), declareQ,
	publishMethod(1, "", q), publishMethod(2, "", q), contentHeader(1, basic, 0, 4, noProperties), contentHeader(2, basic, 0, 4, noProperties),
	body(1, "on"), body(2, "tw"), body(2, "o."), body(1, "e."))

func playInterleaved(_ AMQP, p *Peer) error {
	if err := p.send(interleaved); err != nil {
		return err
	}
	for i, w := range [][2]uint16{{channel, 11}, {channel, 11}, {queue, 11}} {
		if _, err := p.expect([]uint16{1, 2, 1}[i], w[0], w[1]); err != nil {
			return err
		}
	}
	for _, want := range []string{"two.", "one."} {
		if _, got, err := p.get(1, q); err != nil || got != want {
			return fmt.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	return p.goodbye()
}

// unclosed makes the server close a channel, ignores channel.close, and continues to use the
// channel.
var unclosed = join(channelOpen(1), channelOpen(2), method(1, queue, 10, uint16(0), "no-such-queue", uint8(passive), table(nil)),
	bytes.Repeat(join(declareQ, publish(1, "", q, noProperties, "lost")), 50), channelOpen(1))

func playUnclosed(_ AMQP, p *Peer) error {
	err := p.send(unclosed)
	for _, ch := range []uint16{1, 2} {
		if err == nil {
			_, err = p.expect(ch, channel, 11)
		}
	}
	if err != nil {
		return err
	}
	if err := p.refused(refuses(404, "no queue 'no-such-queue'")); err != nil {
		return err
	}
	// The server must ignore all frames for channel 1; channel 2 must work.
	if err := p.ask(2, declare(2, q, exclusive, nil), queue, 11); err != nil {
		return err
	}
	if err := p.ask(2, method(2, basic, 70, uint16(0), q, uint8(1)), basic, 72); err != nil {
		return fmt.Errorf("a message published after a channel's end was stored: %w", err)
	}
	if err := p.works(); err != nil {
		return err
	}
	return p.goodbye()
}

// playUnread sends a million requests and reads no answer. The server must stop reading, so that
// sending blocks.
func playUnread(_ AMQP, p *Peer) error {
	if err := p.ask(1, channelOpen(1), channel, 11); err != nil {
		return err
	}
	if err := p.ask(1, declareQ, queue, 11); err != nil {
		return err
	}
	many := p.named(bytes.Repeat(declare(1, q, passive|exclusive, nil), 1000))
	for range 1000 {
		if err := p.conn.SetWriteDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		if _, err := p.conn.Write(many); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				if tc, ok := p.conn.(*net.TCPConn); ok {
					return tc.SetLinger(0) // this connection cannot be closed in order
				}
				return nil
			}
			return err
		}
	}
	return errors.New("the server took a million requests whose answers nobody read")
}

func storm(n int) []byte {
	return join(channelOpen(1), declareQ, bytes.Repeat(join(
		method(1, basic, 20, uint16(0), q, "tag", uint8(8), table(nil)), method(1, basic, 30, "tag", uint8(1))), n))
}

func playStorm(_ AMQP, p *Peer) error {
	if err := p.send(storm(2000)); err != nil {
		return err
	}
	for _, w := range [][2]uint16{{channel, 11}, {queue, 11}} {
		if _, err := p.expect(1, w[0], w[1]); err != nil {
			return err
		}
	}
	if err := p.send(declare(1, q, passive|exclusive, nil)); err != nil {
		return err
	}
	r, err := p.expect(1, queue, 11)
	if err != nil {
		return err
	}
	if n := len(r.payload); n < 4 || string(r.payload[n-4:]) != "\x00\x00\x00\x00" {
		return fmt.Errorf("after the storm the queue's state is % x; want no consumers", r.payload)
	}
	return p.goodbye()
}

// playOdd checks that unusual legal values are delivered byte for byte.
func playOdd(_ AMQP, p *Peer) error {
	if err := p.send(onQ(message(withHeaders(odd)))(AMQP{})); err != nil {
		return err
	}
	for _, w := range [][2]uint16{{channel, 11}, {queue, 11}} {
		if _, err := p.expect(1, w[0], w[1]); err != nil {
			return err
		}
	}
	properties, got, err := p.get(1, q)
	if err != nil {
		return err
	}
	if got != "m" || !bytes.Equal(properties, withHeaders(odd)) {
		return fmt.Errorf("properties % x came back as % x", withHeaders(odd), properties)
	}
	return p.goodbye()
}

const forgedKey = "amq.rabbitmq.reply-to.g2dkABByZXBseUBsb2NhbGhvc3QAAAAAAAAAAAAAAAAA.forged"

// forged publishes to a reply address that the server assigned to no client. The message is
// unroutable and must be sent back by basic.return.
var forged = join(method(1, basic, 40, uint16(0), "", forgedKey, uint8(1)), contentHeader(1, basic, 0, 1, noProperties), body(1, "x"))

func playForged(_ AMQP, p *Peer) error {
	if err := p.send(on(forged)(AMQP{})); err != nil {
		return err
	}
	if _, err := p.expect(1, channel, 11); err != nil {
		return err
	}
	if _, err := p.expect(1, basic, 50); err != nil {
		return err
	}
	if _, got, err := p.content(); err != nil || got != "x" {
		return fmt.Errorf("returned %q, %v", got, err)
	}
	if err := p.works(); err != nil {
		return err
	}
	return p.goodbye()
}

// dots publishes a routing key of 256 empty words. The bound patterns match the key in an
// astronomical number of ways.
var dots = func() []byte {
	b := join(declareTopic, declareQ)
	for _, pattern := range []string{strings.Repeat("#.", 127) + "#", strings.Repeat("#.*.", 63) + "#", strings.Repeat("*.#.", 60) + "x", strings.Repeat("#.", 100) + "x"} {
		b = join(b, bind(1, q, topic, pattern))
	}
	return join(b, bytes.Repeat(publish(1, topic, strings.Repeat(".", 255), noProperties, "dots"), 20))
}()

func playDots(_ AMQP, p *Peer) error {
	if err := p.send(on(dots)(AMQP{})); err != nil {
		return err
	}
	for _, w := range [][2]uint16{{channel, 11}, {exchange, 11}, {queue, 11}, {queue, 21}, {queue, 21}, {queue, 21}, {queue, 21}} {
		if _, err := p.expect(1, w[0], w[1]); err != nil {
			return err
		}
	}
	for range 20 { // once for each publish, however many patterns match
		if _, got, err := p.get(1, q); err != nil || got != "dots" {
			return fmt.Errorf("got %q, %v", got, err)
		}
	}
	if err := p.ask(1, method(1, basic, 70, uint16(0), q, uint8(1)), basic, 72); err != nil {
		return err
	}
	return p.goodbye()
}

func playHeartbeat(seconds uint16) func(AMQP, *Peer) error {
	return func(s AMQP, p *Peer) error {
		if err := errors.Join(p.send([]byte(protocolHeader)), p.send(in(tuneOk(channelMax, frameMax, seconds), connectionOpen("/"))(s)), p.opened()); err != nil {
			return err
		}
		if err := p.works(); err != nil {
			return err
		}
		return p.goodbye()
	}
}

// otherSecret sends another user's credentials on an open connection.
var otherSecret = join(method(0, connection, 70, []byte(plain("administrator", "secret")), "refresh"), channelOpen(1), declareQ,
	message(fields(uint16(hasUserID), "administrator")))

// playOtherSecret: the server may store a new secret, but the connection still belongs to the user
// that opened it.
func playOtherSecret(_ AMQP, p *Peer) error {
	if err := p.send(otherSecret); err != nil {
		return err
	}
	if _, err := p.expect(0, connection, 71); err != nil {
		return err
	}
	for _, w := range [][2]uint16{{channel, 11}, {queue, 11}} {
		if _, err := p.expect(1, w[0], w[1]); err != nil {
			return err
		}
	}
	if err := p.refused(refuses(406, "user_id property set to 'administrator'")); err != nil {
		return err
	}
	return p.works()
}
