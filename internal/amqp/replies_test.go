package amqp

import (
	"context"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
)

// published is a publish in a table of methods.
type published struct {
	*wire.BasicPublish
	props wire.Properties
	body  string
}

func exchangeOf(name, kind string, pairs ...any) *wire.ExchangeDeclare {
	return &wire.ExchangeDeclare{Exchange: name, Type: kind, Arguments: amqptest.Args(pairs...)}
}

func props(f func(*wire.Properties)) (p wire.Properties) {
	f(&p)
	return p
}

const lockedQ = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'theirs' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."

// TestReplyTexts runs the methods of each case on a fresh channel of a fresh connection. All but
// the last must succeed, and the last must fail. The texts are RabbitMQ's own.
func TestReplyTexts(t *testing.T) {
	bn := start(t, Limits{MaxMessage: 1000000})
	bn.user("reader", auth.Permission{Read: ".*"})
	bn.user("nobody", auth.Permission{Configure: "mine", Write: "mine", Read: "mine"})
	holder := bn.connect("guest")
	holder.Channel(1)
	for _, m := range []wire.Method{
		&wire.QueueDeclare{Queue: "theirs", Exclusive: true}, amqptest.Declare("q"), amqptest.Declare("ttl", "x-message-ttl", int16(1000)),
		amqptest.Declare("quorum", "x-queue-type", "quorum"), amqptest.Declare("withmessage"),
	} {
		holder.Send(1, m)
		amqptest.Want[*wire.QueueDeclareOk](holder, 1)
	}
	holder.Publish(1, &wire.BasicPublish{RoutingKey: "withmessage"}, wire.Properties{}, "x")
	holder.Send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: "all", Exclusive: true})
	amqptest.Want[*wire.BasicConsumeOk](holder, 1)
	for _, x := range []*wire.ExchangeDeclare{exchangeOf("direct", "direct"), {Exchange: "internal", Type: "direct", Internal: true}, exchangeOf("headers", "headers"), exchangeOf("used", "fanout")} {
		holder.Send(1, x)
		holder.Bare(1, wire.IDExchangeDeclareOk)
	}
	holder.Send(1, &wire.QueueBind{Queue: "withmessage", Exchange: "used"})
	holder.Bare(1, wire.IDQueueBindOk)

	const cons, chann = true, false
	long := strings.Repeat("n", 250)
	for _, tt := range []struct {
		methods []any
		conn    bool
		code    wire.Code
		text    string
		id      wire.MethodID
		user    string
	}{
		// Channels and connection.
		{[]any{&wire.ChannelOpen{}}, cons, 504, "CHANNEL_ERROR - second 'channel.open' seen", wire.IDChannelOpen, ""},
		{[]any{&wire.ConnectionOpen{}}, cons, 503, "COMMAND_INVALID - unimplemented method", wire.IDConnectionOpen, ""},
		{[]any{&wire.ChannelFlow{}}, cons, 540, "NOT_IMPLEMENTED - active=false", wire.IDChannelFlow, ""},

		// Exchanges.
		{[]any{exchangeOf("x", "bogus")}, cons, 503, "COMMAND_INVALID - unknown exchange type 'bogus'", wire.IDExchangeDeclare, ""},
		{[]any{exchangeOf("x", "x-delayed-message", "x-delayed-type", "bogus")}, chann, 406, "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type", wire.IDExchangeDeclare, ""},
		{[]any{&wire.ExchangeDeclare{Exchange: "absentx", Passive: true}}, chann, 404, "NOT_FOUND - no exchange 'absentx' in vhost '/'", wire.IDExchangeDeclare, ""},
		{[]any{exchangeOf("amq.foo", "direct")}, chann, 403, "ACCESS_REFUSED - exchange name 'amq.foo' contains reserved prefix 'amq.*'", wire.IDExchangeDeclare, ""},
		{[]any{exchangeOf("", "direct")}, chann, 403, "ACCESS_REFUSED - operation not permitted on the default exchange", wire.IDExchangeDeclare, ""},
		{[]any{&wire.ExchangeDeclare{Passive: true}}, chann, 403, "ACCESS_REFUSED - operation not permitted on the default exchange", wire.IDExchangeDeclare, ""},
		{[]any{exchangeOf("direct", "topic")}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'direct' in vhost '/': received 'topic' but current is 'direct'", wire.IDExchangeDeclare, ""},
		{[]any{&wire.ExchangeDeclare{Exchange: "direct", Type: "direct", Durable: true}}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'direct' in vhost '/': received 'true' but current is 'false'", wire.IDExchangeDeclare, ""},
		{[]any{&wire.ExchangeDeclare{Exchange: "direct", Type: "direct", AutoDelete: true}}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for exchange 'direct' in vhost '/': received 'true' but current is 'false'", wire.IDExchangeDeclare, ""},
		{[]any{&wire.ExchangeDeclare{Exchange: "direct", Type: "direct", Internal: true}}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'internal' for exchange 'direct' in vhost '/': received 'true' but current is 'false'", wire.IDExchangeDeclare, ""},
		{[]any{exchangeOf("direct", "direct", "alternate-exchange", "a")}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'direct' in vhost '/': received the value 'a' of type 'longstr' but current is none", wire.IDExchangeDeclare, ""},
		{[]any{exchangeOf("alt", "direct", "alternate-exchange", 5)}, chann, 406, "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'alt' in vhost '/'", wire.IDExchangeDeclare, ""},
		{[]any{&wire.ExchangeDelete{Exchange: "amq.direct"}}, chann, 403, "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed", wire.IDExchangeDelete, ""},
		{[]any{&wire.ExchangeDelete{}}, chann, 403, "ACCESS_REFUSED - operation not permitted on the default exchange", wire.IDExchangeDelete, ""},
		{[]any{&wire.ExchangeDelete{Exchange: "used", IfUnused: true}}, chann, 406, "PRECONDITION_FAILED - exchange 'used' in vhost '/' in use", wire.IDExchangeDelete, ""},
		{[]any{&wire.ExchangeBind{ExchangeBinding: wire.ExchangeBinding{Source: "absentx", Destination: "direct"}}}, chann, 404, "NOT_FOUND - no exchange 'absentx' in vhost '/'", wire.IDExchangeBind, ""},
		{[]any{&wire.ExchangeBind{ExchangeBinding: wire.ExchangeBinding{Source: "direct", Destination: "absentx"}}}, chann, 404, "NOT_FOUND - no exchange 'absentx' in vhost '/'", wire.IDExchangeBind, ""},

		// Queues.
		{[]any{&wire.QueueDeclare{Queue: "absent.q", Passive: true}}, chann, 404, "NOT_FOUND - no queue 'absent.q' in vhost '/'", wire.IDQueueDeclare, ""},
		{[]any{&wire.QueueDeclare{Passive: true}}, chann, 404, "NOT_FOUND - no queue '' in vhost '/'", wire.IDQueueDeclare, ""},
		{[]any{amqptest.Declare("amq.foo")}, chann, 403, "ACCESS_REFUSED - queue name 'amq.foo' contains reserved prefix 'amq.*'", wire.IDQueueDeclare, ""},
		{[]any{&wire.QueueDeclare{Queue: "q"}}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'", wire.IDQueueDeclare, ""},
		{[]any{&wire.QueueDeclare{Queue: "q", Durable: true, AutoDelete: true}}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'", wire.IDQueueDeclare, ""},
		{[]any{amqptest.Declare("q", "x-message-ttl", int16(1000))}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received the value '1000' of type 'short' but current is none", wire.IDQueueDeclare, ""},
		{[]any{amqptest.Declare("ttl", "x-message-ttl", 1001)}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'ttl' in vhost '/': received '1001' but current is '1000'", wire.IDQueueDeclare, ""},
		{[]any{amqptest.Declare("ttl")}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'ttl' in vhost '/': received none but current is the value '1000' of type 'short'", wire.IDQueueDeclare, ""},
		{[]any{amqptest.Declare("ttl", "x-message-ttl", int64(1000), "x-unknown", "ignored"), amqptest.Declare("quorum")}, chann, 406, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'quorum' in vhost '/': received none but current is the value 'quorum' of type 'longstr'", wire.IDQueueDeclare, ""},
		{[]any{&wire.QueueDeclare{Queue: "q", Durable: true, Exclusive: true}}, chann, 405, strings.ReplaceAll(lockedQ, "theirs", "q"), wire.IDQueueDeclare, ""},
		{[]any{&wire.QueueDeclare{Queue: "theirs", Exclusive: true}}, chann, 405, lockedQ, wire.IDQueueDeclare, ""},
		{[]any{&wire.QueueDeclare{Queue: "theirs", Passive: true}}, chann, 405, lockedQ, wire.IDQueueDeclare, ""},
		{[]any{&wire.BasicConsume{Queue: "theirs"}}, chann, 405, lockedQ, wire.IDBasicConsume, ""},
		{[]any{&wire.BasicGet{Queue: "theirs"}}, chann, 405, lockedQ, wire.IDBasicGet, ""},
		{[]any{&wire.QueuePurge{Queue: "theirs"}}, chann, 405, lockedQ, wire.IDQueuePurge, ""},
		{[]any{&wire.QueueDelete{Queue: "theirs"}}, chann, 405, lockedQ, wire.IDQueueDelete, ""},
		{[]any{&wire.QueueBind{Queue: "theirs", Exchange: "direct"}}, chann, 405, lockedQ, wire.IDQueueBind, ""},
		{[]any{&wire.QueueUnbind{Queue: "theirs", Exchange: "direct"}}, chann, 405, lockedQ, wire.IDQueueUnbind, ""},
		{[]any{&wire.QueuePurge{}}, chann, 404, "NOT_FOUND - no previously declared queue", wire.IDQueuePurge, ""},
		{[]any{&wire.QueuePurge{Queue: "absent.q"}}, chann, 404, "NOT_FOUND - no queue 'absent.q' in vhost '/'", wire.IDQueuePurge, ""},
		{[]any{&wire.QueueDelete{Queue: "q", IfUnused: true}}, chann, 406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use", wire.IDQueueDelete, ""},
		{[]any{&wire.QueueDelete{Queue: "withmessage", IfEmpty: true}}, chann, 406, "PRECONDITION_FAILED - queue 'withmessage' in vhost '/' not empty", wire.IDQueueDelete, ""},
		{[]any{&wire.QueueBind{Queue: "absent.q", Exchange: "absentx"}}, chann, 404, "NOT_FOUND - no queue 'absent.q' in vhost '/'", wire.IDQueueBind, ""},
		{[]any{&wire.QueueBind{Queue: "q", Exchange: "absentx"}}, chann, 404, "NOT_FOUND - no exchange 'absentx' in vhost '/'", wire.IDQueueBind, ""},
		{[]any{&wire.QueueBind{Queue: "q"}}, chann, 403, "ACCESS_REFUSED - operation not permitted on the default exchange", wire.IDQueueBind, ""},
		{[]any{&wire.QueueBind{Queue: "q", Exchange: "headers", Arguments: amqptest.Args("x-match", "bogus")}}, chann, 406, `PRECONDITION_FAILED - Invalid x-match field value <<"bogus">>; expected all, any, all-with-x, or any-with-x`, wire.IDQueueBind, ""},
		{[]any{&wire.QueueBind{Queue: "q", Exchange: "headers", Arguments: amqptest.Args("x-match", 1)}}, chann, 406, "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr", wire.IDQueueBind, ""},
		{[]any{amqptest.Declare("a\r\nb"), &wire.QueueDeclare{Queue: "ab", Passive: true}, &wire.QueueDelete{Queue: "a\nb"}, &wire.QueueDeclare{Queue: "ab", Passive: true}}, chann, 404, "NOT_FOUND - no queue 'ab' in vhost '/'", wire.IDQueueDeclare, ""},
		{[]any{&wire.QueueDeclare{Queue: long, Passive: true}}, chann, 404, "NOT_FOUND - no queue '" + long[:252-len("NOT_FOUND - no queue '")] + "...", wire.IDQueueDeclare, ""},

		// Consumers and deliveries.
		{[]any{&wire.BasicConsume{Queue: "absent.q"}}, chann, 404, "NOT_FOUND - no queue 'absent.q' in vhost '/'", wire.IDBasicConsume, ""},
		{[]any{&wire.BasicConsume{Queue: "ttl", ConsumerTag: "t"}, &wire.BasicConsume{Queue: "ttl", ConsumerTag: "t"}}, cons, 530, "NOT_ALLOWED - attempt to reuse consumer tag 't'", wire.IDBasicConsume, ""},
		{[]any{&wire.BasicConsume{Queue: "q"}}, chann, 403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", wire.IDBasicConsume, ""},
		{[]any{&wire.BasicGet{Queue: "q"}, &wire.BasicConsume{Queue: "q", Exclusive: true}}, chann, 403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", wire.IDBasicConsume, ""},
		{[]any{&wire.BasicConsume{Queue: "ttl"}, &wire.BasicConsume{Queue: "ttl", Exclusive: true}}, chann, 403, "ACCESS_REFUSED - queue 'ttl' in vhost '/' in exclusive use", wire.IDBasicConsume, ""},
		{[]any{amqptest.Declare("sac", "x-single-active-consumer", true), &wire.BasicConsume{Queue: "sac", Exclusive: true}}, chann, 403, "ACCESS_REFUSED - queue 'sac' in vhost '/' in exclusive use", wire.IDBasicConsume, ""},
		{[]any{&wire.BasicConsume{Queue: "ttl", Arguments: amqptest.Args("x-priority", "high")}}, chann, 406, `PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'ttl' in vhost '/': "expected integer, got longstr"`, wire.IDBasicConsume, ""},
		{[]any{&wire.BasicQos{PrefetchSize: 10}}, cons, 540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)", wire.IDBasicQos, ""},
		{[]any{&wire.BasicQos{PrefetchCount: 1, Global: true}, &wire.BasicConsume{Queue: "quorum"}}, cons, 540, "NOT_IMPLEMENTED - queue 'quorum' in vhost '/' does not support global qos", wire.IDBasicConsume, ""},
		{[]any{&wire.BasicAck{DeliveryTag: 1}}, chann, 406, "PRECONDITION_FAILED - unknown delivery tag 1", wire.IDBasicAck, ""},
		{[]any{&wire.BasicAck{}}, chann, 406, "PRECONDITION_FAILED - unknown delivery tag 0", wire.IDBasicAck, ""},
		{[]any{&wire.BasicNack{DeliveryTag: 9, Multiple: true}}, chann, 406, "PRECONDITION_FAILED - unknown delivery tag 9", wire.IDBasicNack, ""},
		{[]any{&wire.BasicAck{Multiple: true}, &wire.BasicReject{DeliveryTag: 3}}, chann, 406, "PRECONDITION_FAILED - unknown delivery tag 3", wire.IDBasicReject, ""},
		{[]any{&wire.BasicGet{Queue: "withmessage"}, &wire.BasicAck{DeliveryTag: 1, Multiple: true}, &wire.BasicAck{DeliveryTag: 1, Multiple: true}}, chann, 406, "PRECONDITION_FAILED - unknown delivery tag 1", wire.IDBasicAck, ""},
		{[]any{&wire.BasicRecover{}}, cons, 540, "NOT_IMPLEMENTED - requeue=false", wire.IDBasicRecover, ""},
		{[]any{&wire.BasicRecoverAsync{}}, cons, 540, "NOT_IMPLEMENTED - requeue=false", wire.IDBasicRecoverAsync, ""},

		// Publishing.
		{[]any{published{BasicPublish: &wire.BasicPublish{Exchange: "absentx"}}}, chann, 404, "NOT_FOUND - no exchange 'absentx' in vhost '/'", wire.IDBasicPublish, ""},
		{[]any{&wire.BasicPublish{RoutingKey: "q", Immediate: true}}, cons, 540, "NOT_IMPLEMENTED - immediate=true", wire.IDBasicPublish, ""},
		{[]any{published{BasicPublish: &wire.BasicPublish{Exchange: "internal"}}}, chann, 403, "ACCESS_REFUSED - cannot publish to internal exchange 'internal' in vhost '/'", wire.IDBasicPublish, ""},
		{[]any{published{&wire.BasicPublish{}, expiring("a"), ""}}, chann, 406, "PRECONDITION_FAILED - invalid expiration 'a': no_integer", wire.IDBasicPublish, ""},
		{[]any{published{&wire.BasicPublish{}, expiring("-1"), ""}}, chann, 406, "PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}", wire.IDBasicPublish, ""},
		{[]any{published{&wire.BasicPublish{}, expiring("1.5"), ""}}, chann, 406, `PRECONDITION_FAILED - invalid expiration '1.5': {leftover_string,".5"}`, wire.IDBasicPublish, ""},
		{[]any{published{&wire.BasicPublish{}, expiring("10 "), ""}}, chann, 406, `PRECONDITION_FAILED - invalid expiration '10 ': {leftover_string," "}`, wire.IDBasicPublish, ""},
		{[]any{published{&wire.BasicPublish{}, expiring("99999999999999999999"), ""}}, chann, 406, `PRECONDITION_FAILED - invalid expiration '99999999999999999999': {value_too_large,99999999999999999999}`, wire.IDBasicPublish, ""},
		{[]any{published{&wire.BasicPublish{}, props(func(p *wire.Properties) { p.SetString(wire.HasUserID, &p.UserID, []byte("other")) }), ""}}, chann, 406, "PRECONDITION_FAILED - user_id property set to 'other' but authenticated user was 'guest'", wire.IDBasicPublish, ""},
		{[]any{published{&wire.BasicPublish{}, headered("CC", 1), ""}}, chann, 406, `PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",signedint}`, wire.IDBasicPublish, ""},
		{[]any{published{BasicPublish: &wire.BasicPublish{}, body: strings.Repeat("x", 1000001)}}, chann, 406, "PRECONDITION_FAILED - message size 1000001 is larger than configured max size 1000000; server.max_message in the configuration raises it", wire.IDBasicPublish, ""},
		{[]any{published{&wire.BasicPublish{RoutingKey: "q"}, props(func(p *wire.Properties) { p.SetString(wire.HasReplyTo, &p.ReplyTo, []byte("amq.rabbitmq.reply-to")) }), ""}}, chann, 406, "PRECONDITION_FAILED - fast reply consumer does not exist", wire.IDBasicPublish, ""},

		// Modes.
		{[]any{wire.Bare(wire.IDTxCommit)}, chann, 406, "PRECONDITION_FAILED - channel is not transactional", wire.IDTxCommit, ""},
		{[]any{wire.Bare(wire.IDTxRollback)}, chann, 406, "PRECONDITION_FAILED - channel is not transactional", wire.IDTxRollback, ""},
		{[]any{wire.Bare(wire.IDTxSelect), &wire.ConfirmSelect{}}, chann, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", wire.IDConfirmSelect, ""},
		{[]any{&wire.ConfirmSelect{}, &wire.ConfirmSelect{}, wire.Bare(wire.IDTxSelect)}, chann, 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", wire.IDTxSelect, ""},

		// Direct reply-to.
		{[]any{&wire.BasicConsume{Queue: "amq.rabbitmq.reply-to"}}, chann, 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", wire.IDBasicConsume, ""},
		{[]any{&wire.BasicConsume{Queue: "amq.rabbitmq.reply-to", NoAck: true}, &wire.BasicConsume{Queue: "amq.rabbitmq.reply-to", NoAck: true}}, chann, 406, "PRECONDITION_FAILED - reply consumer already set", wire.IDBasicConsume, ""},
		{[]any{&wire.QueueDeclare{Queue: "amq.rabbitmq.reply-to.forged", Passive: true}}, chann, 404, "NOT_FOUND - no queue 'amq.rabbitmq.reply-to.forged' in vhost '/'", wire.IDQueueDeclare, ""},

		// Permissions.
		{[]any{amqptest.Declare("z")}, chann, 403, "ACCESS_REFUSED - access to queue 'z' in vhost '/' refused for user 'reader'", wire.IDQueueDeclare, "reader"},
		{[]any{&wire.QueueDeclare{Queue: "ttl", Passive: true}, &wire.QueueDelete{Queue: "ttl"}}, chann, 403, "ACCESS_REFUSED - access to queue 'ttl' in vhost '/' refused for user 'reader'", wire.IDQueueDelete, "reader"},
		{[]any{amqptest.Declare("")}, chann, 403, "ACCESS_REFUSED - access to queue '' in vhost '/' refused for user 'nobody'", wire.IDQueueDeclare, "nobody"},
		{[]any{published{BasicPublish: &wire.BasicPublish{RoutingKey: "q"}}}, chann, 403, "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'reader'", wire.IDBasicPublish, "reader"},
		{[]any{published{BasicPublish: &wire.BasicPublish{Exchange: "direct"}}}, chann, 403, "ACCESS_REFUSED - access to exchange 'direct' in vhost '/' refused for user 'reader'", wire.IDBasicPublish, "reader"},
		{[]any{&wire.BasicConsume{Queue: "ttl"}}, chann, 403, "ACCESS_REFUSED - access to queue 'ttl' in vhost '/' refused for user 'nobody'", wire.IDBasicConsume, "nobody"},
		{[]any{&wire.BasicGet{Queue: "ttl"}}, chann, 403, "ACCESS_REFUSED - access to queue 'ttl' in vhost '/' refused for user 'nobody'", wire.IDBasicGet, "nobody"},
		{[]any{&wire.QueuePurge{Queue: "ttl"}}, chann, 403, "ACCESS_REFUSED - access to queue 'ttl' in vhost '/' refused for user 'nobody'", wire.IDQueuePurge, "nobody"},
		{[]any{exchangeOf("x", "direct")}, chann, 403, "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'nobody'", wire.IDExchangeDeclare, "nobody"},
		{[]any{exchangeOf("mine", "direct", "alternate-exchange", "direct")}, chann, 403, "ACCESS_REFUSED - access to exchange 'direct' in vhost '/' refused for user 'nobody'", wire.IDExchangeDeclare, "nobody"},
		{[]any{amqptest.Declare("mine", "x-dead-letter-exchange", "")}, chann, 403, "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'nobody'", wire.IDQueueDeclare, "nobody"},
		{[]any{amqptest.Declare("mine"), &wire.QueueBind{Queue: "mine", Exchange: "direct"}}, chann, 403, "ACCESS_REFUSED - access to exchange 'direct' in vhost '/' refused for user 'nobody'", wire.IDQueueBind, "nobody"},
		{[]any{&wire.QueueBind{Queue: "ttl", Exchange: "mine"}}, chann, 403, "ACCESS_REFUSED - access to queue 'ttl' in vhost '/' refused for user 'nobody'", wire.IDQueueBind, "nobody"},
		{[]any{&wire.ExchangeBind{ExchangeBinding: wire.ExchangeBinding{Source: "mine", Destination: "direct"}}}, chann, 403, "ACCESS_REFUSED - access to exchange 'direct' in vhost '/' refused for user 'nobody'", wire.IDExchangeBind, "nobody"},
		{[]any{&wire.ExchangeDelete{Exchange: "direct"}}, chann, 403, "ACCESS_REFUSED - access to exchange 'direct' in vhost '/' refused for user 'nobody'", wire.IDExchangeDelete, "nobody"},
	} {
		t.Run(tt.text, func(t *testing.T) { bn.fails(t, tt.methods, tt.conn, tt.code, tt.text, tt.id, tt.user) })
	}
}

func expiring(s string) wire.Properties {
	return props(func(p *wire.Properties) { p.SetString(wire.HasExpiration, &p.Expiration, []byte(s)) })
}

func headered(pairs ...any) wire.Properties {
	return wire.Properties{Flags: wire.HasHeaders, Headers: amqptest.Args(pairs...)}
}

// fails runs methods on a fresh connection. The last method must end the connection if conn is
// true, and otherwise its channel.
func (bn *bench) fails(t *testing.T, methods []any, conn bool, code wire.Code, text string, id wire.MethodID, user string) {
	if user == "" {
		user = "guest"
	}
	p := amqptest.Dial(t, bn.addr)
	p.Login(user, "/", wire.Tuning{ChannelMax: 2047, FrameMax: 131072})
	p.Channel(1)
	for i, m := range methods {
		switch m := m.(type) {
		case published:
			p.Publish(1, m.BasicPublish, m.props, m.body)
			continue
		case wire.Method:
			p.Send(1, m)
		}
		if i == len(methods)-1 {
			break
		}
		switch m.(type) {
		case *wire.BasicAck, *wire.BasicNack, *wire.BasicReject:
		default:
			if _, got := p.Method(); isClose(got) {
				t.Fatalf("step %d failed: %+v", i, got)
			} else if _, ok := got.(*wire.BasicGetOk); ok {
				p.Content()
			}
		}
	}
	wantClosing := wire.Closing{ReplyCode: code, ReplyText: text, Class: id.Class(), Method: id.Method()}
	if conn {
		if got := amqptest.Want[*wire.ConnectionClose](p, 0).Closing; got != wantClosing {
			t.Errorf("got  %+v\nwant %+v", got, wantClosing)
		}
		p.Send(0, wire.Bare(wire.IDConnectionCloseOk))
		p.Closed()
		return
	}
	if got := amqptest.Want[*wire.ChannelClose](p, 1).Closing; got != wantClosing {
		t.Errorf("got  %+v\nwant %+v", got, wantClosing)
	}
	// The server discards everything until close-ok. Then the channel's number is free, and the
	// connection still works.
	p.Send(1, amqptest.Declare("discarded"))
	p.Send(1, wire.Bare(wire.IDChannelCloseOk))
	p.Channel(1)
	p.Send(1, &wire.QueueDeclare{Queue: "discarded", Passive: true})
	if got := amqptest.Want[*wire.ChannelClose](p, 1); got.ReplyCode != wire.CodeNotFound && user == "guest" {
		t.Errorf("what came for a closed channel was done: %+v", got)
	}
}

func isClose(m wire.Method) bool {
	switch m.(type) {
	case *wire.ChannelClose, *wire.ConnectionClose:
		return true
	}
	return false
}

// TestQueueArgumentChecks: each argument that RabbitMQ checks is refused with RabbitMQ's text.
func TestQueueArgumentChecks(t *testing.T) {
	where := "queue 'q' in vhost '/'"
	invalid := func(arg, why string) string {
		return "PRECONDITION_FAILED - invalid arg '" + arg + "' for " + where + ": " + why
	}
	durable := translate.QueueAttrs{Durable: true}
	for _, tt := range []struct {
		flags translate.QueueAttrs
		args  wire.Table
		text  string
	}{
		{durable, amqptest.Args("x-message-ttl", -1), invalid("x-message-ttl", "{value_negative,-1}")},
		{durable, amqptest.Args("x-message-ttl", "x"), invalid("x-message-ttl", `"expected integer, got longstr"`)},
		{durable, amqptest.Args("x-message-ttl", int64(315360000001)), invalid("x-message-ttl", "{value_too_large,315360000001}")},
		{durable, amqptest.Args("x-message-ttl", int64(315360000000)), ""},
		{durable, amqptest.Args("x-message-ttl", 0), ""},
		{durable, amqptest.Args("x-expires", 0), invalid("x-expires", "{value_zero,0}")},
		{durable, amqptest.Args("x-expires", -5), invalid("x-expires", "{value_negative,-5}")},
		{durable, amqptest.Args("x-expires", "x"), invalid("x-expires", `"expected integer, got longstr"`)},
		{durable, amqptest.Args("x-max-length", -1), invalid("x-max-length", "{value_negative,-1}")},
		{durable, amqptest.Args("x-max-length-bytes", "x"), invalid("x-max-length-bytes", `"expected integer, got longstr"`)},
		{durable, amqptest.Args("x-max-length", 0, "x-max-length-bytes", int64(1<<60)), ""},
		{durable, amqptest.Args("x-overflow", "bogus"), invalid("x-overflow", "invalid_overflow")},
		{durable, amqptest.Args("x-overflow", 1), invalid("x-overflow", "{unacceptable_type,signedint}")},
		{durable, amqptest.Args("x-overflow", "reject-publish-dlx"), ""},
		{durable, amqptest.Args("x-dead-letter-exchange", 1), "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in " + where},
		{durable, amqptest.Args("x-dead-letter-routing-key", "k"), invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")},
		{durable, amqptest.Args("x-dead-letter-exchange", "", "x-dead-letter-routing-key", "k"), ""},
		{durable, amqptest.Args("x-max-priority", 256), invalid("x-max-priority", "{max_value_exceeded,256}")},
		{durable, amqptest.Args("x-max-priority", -1), invalid("x-max-priority", "{value_negative,-1}")},
		{durable, amqptest.Args("x-max-priority", 255), ""},
		{durable, amqptest.Args("x-queue-type", "bogus"), invalid("x-queue-type", `"unsupported queue type 'bogus'"`)},
		{durable, amqptest.Args("x-queue-type", "stream"), invalid("x-queue-type", `"unsupported queue type 'stream'"`)},
		{durable, amqptest.Args("x-queue-type", 1), invalid("x-queue-type", "{unacceptable_type,signedint}")},
		{durable, amqptest.Args("x-queue-mode", "bogus"), invalid("x-queue-mode", `"unsupported queue mode 'bogus'"`)},
		{durable, amqptest.Args("x-queue-mode", "lazy", "x-queue-version", 2), ""},
		{durable, amqptest.Args("x-queue-version", 3), invalid("x-queue-version", `"unsupported queue version '3'"`)},
		{durable, amqptest.Args("x-single-active-consumer", "yes"), invalid("x-single-active-consumer", "{unacceptable_type,longstr}")},
		{durable, amqptest.Args("x-delivery-limit", 3), "PRECONDITION_FAILED - invalid arg 'x-delivery-limit' for " + where + " of queue type rabbit_classic_queue"},
		{durable, amqptest.Args("x-queue-type", "quorum", "x-delivery-limit", 3), ""},
		{durable, amqptest.Args("x-consumer-timeout", 1000, "x-ha-policy", "all", "x-queue-master-locator", "min-masters", "x-cancel-on-ha-failover", true), ""},
		{translate.QueueAttrs{}, amqptest.Args("x-queue-type", "quorum"), "PRECONDITION_FAILED - invalid property 'non-durable' for " + where},
		{translate.QueueAttrs{Durable: true, Exclusive: true}, amqptest.Args("x-queue-type", "quorum"), "PRECONDITION_FAILED - invalid property 'exclusive-owner' for " + where},
		{translate.QueueAttrs{Durable: true, AutoDelete: true}, amqptest.Args("x-queue-type", "quorum"), "PRECONDITION_FAILED - invalid property 'auto-delete' for " + where},
		{durable, amqptest.Args("x-queue-type", "quorum", "x-max-priority", 3), ""},
		{durable, amqptest.Args("x-queue-type", "quorum", "x-delivery-limit", -1), ""},
		{durable, amqptest.Args("x-queue-type", "quorum", "x-delivery-limit", -2), invalid("x-delivery-limit", "{value_negative,-2}")},
	} {
		tt.flags.Args = tt.args
		_, err := translate.ParseQueueArgs(tt.flags, where)
		if got := errText(err); got != tt.text {
			t.Errorf("% x:\n got %s\nwant %s", tt.args, got, tt.text)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestForcedCloses(t *testing.T) {
	bn := start(t, Limits{})
	ctx := context.Background()
	if _, err := bn.auth.PutVhost(ctx, "vv", ""); err != nil {
		t.Fatal(err)
	}
	if err := bn.auth.PutPermission(ctx, "guest", "vv", auth.AllPermissions); err != nil {
		t.Fatal(err)
	}
	bn.user("leaver", auth.AllPermissions)
	in := func(user, vhost string) *amqptest.Peer {
		p := amqptest.Dial(t, bn.addr)
		p.Login(user, vhost, wire.Tuning{ChannelMax: 10, FrameMax: 4096})
		return p
	}
	ends := func(p *amqptest.Peer, text string) {
		t.Helper()
		if got := amqptest.Want[*wire.ConnectionClose](p, 0).Closing; got != (wire.Closing{ReplyCode: 320, ReplyText: text}) {
			t.Errorf("got %+v, want %s", got, text)
		}
		p.Send(0, &wire.ConnectionClose{Closing: wire.Closing{ReplyCode: 200}}) // the two closes cross
		p.Bare(0, wire.IDConnectionCloseOk)
		p.Closed()
	}
	p := in("guest", "vv")
	if err := bn.auth.DeleteVhost(ctx, "vv"); err != nil {
		t.Fatal(err)
	}
	ends(p, "CONNECTION_FORCED - vhost 'vv' is down")
	p = in("leaver", "/")
	if err := bn.auth.DeleteUser(ctx, "leaver"); err != nil {
		t.Fatal(err)
	}
	ends(p, "CONNECTION_FORCED - user 'leaver' is deleted")
	for _, reason := range []string{"", "maintenance %s"} {
		p = in("guest", "/")
		name := p.Conn.LocalAddr().String() + " -> " + p.Conn.RemoteAddr().String()
		if !bn.server.CloseConnection(name, reason) {
			t.Fatal("not found", name)
		}
		if reason == "" {
			reason = "Closed via management plugin"
		}
		ends(p, "CONNECTION_FORCED - "+reason)
	}
	p = in("guest", "/")
	done := make(chan error)
	go func() { done <- bn.server.Shutdown(ctx) }()
	ends(p, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
