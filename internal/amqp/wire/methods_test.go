package wire

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var someTable = Table(nil).AddString("s", "text").AddBool("b", true).AddInt("n", -5).
	AddTable("t", Table(nil).AddString("in", "ner")).AddArray("a", Array(nil).AddString("one"))

// everyMethod has one of each method. No field has its zero value.
var everyMethod = []Method{
	&ConnectionStart{0, 9, someTable, []byte("PLAIN"), []byte("en_US")},
	&ConnectionStartOk{someTable, "PLAIN", []byte("\x00u\x00p"), "en_US"},
	&ConnectionSecure{[]byte("c")}, &ConnectionSecureOk{[]byte("r")},
	&ConnectionTune{Tuning{2047, 131072, 60}}, &ConnectionTuneOk{Tuning{7, 4096, 5}},
	&ConnectionOpen{"/"}, &ConnectionOpenOk{"h"},
	&ConnectionClose{Closing{320, "CONNECTION_FORCED - x", 1, 2}}, Bare(IDConnectionCloseOk),
	&ConnectionBlocked{"low on disk"}, Bare(IDConnectionUnblocked),
	&ConnectionUpdateSecret{[]byte("new"), "why"}, Bare(IDConnectionUpdateSecretOk),
	&ChannelOpen{}, &ChannelOpenOk{}, &ChannelFlow{true}, &ChannelFlowOk{true},
	&ChannelClose{Closing{404, "NOT_FOUND - x", 50, 10}}, Bare(IDChannelCloseOk),
	&AccessRequest{"/data", true, true, true, true, true}, &AccessRequestOk{1},
	&ExchangeDeclare{"x", "topic", true, true, true, true, true, someTable}, Bare(IDExchangeDeclareOk),
	&ExchangeDelete{"x", true, true}, Bare(IDExchangeDeleteOk),
	&ExchangeBind{ExchangeBinding{"d", "s", "k", true, someTable}}, Bare(IDExchangeBindOk),
	&ExchangeUnbind{ExchangeBinding{"d", "s", "k", true, someTable}}, Bare(IDExchangeUnbindOk),
	&QueueDeclare{"q", true, true, true, true, true, someTable}, &QueueDeclareOk{"q", 1, 2},
	&QueueBind{"q", "x", "k", true, someTable}, Bare(IDQueueBindOk),
	&QueuePurge{"q", true}, &QueuePurgeOk{3},
	&QueueDelete{"q", true, true, true}, &QueueDeleteOk{4},
	&QueueUnbind{"q", "x", "k", someTable}, Bare(IDQueueUnbindOk),
	&BasicQos{1, 2, true}, Bare(IDBasicQosOk),
	&BasicConsume{"q", "t", true, true, true, true, someTable}, &BasicConsumeOk{"t"},
	&BasicCancel{"t", true}, &BasicCancelOk{"t"},
	&BasicPublish{"x", "k", true, true}, &BasicReturn{312, "NO_ROUTE", "x", "k"},
	&BasicDeliver{"t", 5, true, "x", "k"},
	&BasicGet{"q", true}, &BasicGetOk{6, true, "x", "k", 7}, &BasicGetEmpty{},
	&BasicAck{8, true}, &BasicReject{9, true}, &BasicNack{10, true, true},
	&BasicRecoverAsync{true}, &BasicRecover{true}, Bare(IDBasicRecoverOk),
	&ConfirmSelect{true}, Bare(IDConfirmSelectOk),
	Bare(IDTxSelect), Bare(IDTxSelectOk), Bare(IDTxCommit), Bare(IDTxCommitOk), Bare(IDTxRollback), Bare(IDTxRollbackOk),
}

var comparing = cmp.Options{cmpopts.IgnoreUnexported(ChannelOpenOk{}), cmpopts.EquateEmpty()}

func TestMethodsRoundTripAndRefuseEveryCut(t *testing.T) {
	seen := map[MethodID]bool{}
	for _, m := range everyMethod {
		seen[m.ID()] = true
		b := AppendMethod([]byte("before"), 3, m)[len("before"):]
		f, n, err := NextFrame(b, 131072)
		if err != nil || n != len(b) || f.Type != FrameMethod || f.Channel != 3 {
			t.Fatalf("%T: frame %v, %d of %d bytes, %v", m, f, n, len(b), err)
		}
		got, err := ParseMethod(f.Payload)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if d := cmp.Diff(m, got, comparing); d != "" {
			t.Errorf("%T: %s", m, d)
		}
		for i := range b {
			if _, n, err := NextFrame(b[:i], 131072); n != 0 || err != nil {
				t.Errorf("%T cut at %d: %d, %v", m, i, n, err)
			}
		}
		for i := range f.Payload {
			if _, err := ParseMethod(f.Payload[:i]); codeOf(err) != CodeFrameError {
				t.Errorf("%T with its payload cut at %d: %v", m, i, err)
			}
		}
		if _, err := ParseMethod(append(f.Payload[:len(f.Payload):len(f.Payload)], 0)); codeOf(err) != CodeFrameError {
			t.Errorf("%T with one extra byte: %v", m, err)
		}
	}
	for class := range MethodID(128) {
		for method := range MethodID(256) {
			if id := class<<16 | method; (newMethod(id) != nil) != seen[id] {
				t.Errorf("method %d of class %d: known %v, tested %v", method, class, newMethod(id) != nil, seen[id])
			}
		}
	}
}

func codeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// The expected bytes come from the specification, so that an error in both reading and writing is
// found.
func TestBytes(t *testing.T) {
	for _, tt := range []struct {
		m   Method
		hex string
	}{
		{&ConnectionTune{Tuning{2047, 131072, 60}}, "01 0000 0000000c 000a001e 07ff 00020000 003c ce"},
		{&ConnectionOpen{"/"}, "01 0000 00000008 000a0028 012f 00 00 ce"},
		{&ChannelOpen{}, "01 0001 00000005 0014000a 00 ce"},
		{&QueueDeclare{Queue: "q", Durable: true, Arguments: Table(nil).AddString("k", "v")},
			"01 0001 00000015 0032000a 0000 0171 02 00000008 016b 53 00000001 76 ce"},
		{&ExchangeUnbind{ExchangeBinding{Destination: "d", Source: "s", RoutingKey: "k", NoWait: true}},
			"01 0001 00000011 00280028 0000 0164 0173 016b 01 00000000 ce"},
		{&BasicPublish{"x", "k", true, false}, "01 0001 0000000b 003c0028 0000 0178 016b 01 ce"},
		{&BasicDeliver{"t", 258, true, "x", "k"}, "01 0001 00000013 003c003c 0174 0000000000000102 01 0178 016b ce"},
		{&BasicNack{1, true, true}, "01 0001 0000000d 003c0078 0000000000000001 03 ce"},
		{Bare(IDTxCommitOk), "01 0001 00000004 005a0015 ce"},
	} {
		ch := uint16(1)
		if tt.m.ID().Class() == ClassConnection {
			ch = 0
		}
		if got, want := hex.EncodeToString(AppendMethod(nil, ch, tt.m)), strings.ReplaceAll(tt.hex, " ", ""); got != want {
			t.Errorf("%T\n got %s\nwant %s", tt.m, got, want)
		}
	}
	same := func(name string, got, want []byte) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: % x, the method gives % x", name, got, want)
		}
	}
	same("AppendDeliver", AppendDeliver(nil, 9, "tag", 1<<40, true, []byte("ex"), "key"),
		AppendMethod(nil, 9, &BasicDeliver{"tag", 1 << 40, true, "ex", "key"}))
	same("AppendAck", AppendAck(nil, 9, 77, true), AppendMethod(nil, 9, &BasicAck{77, true}))
	same("AppendNack", AppendNack(nil, 9, 77, true), AppendMethod(nil, 9, &BasicNack{77, true, false}))
}

func TestHotParsers(t *testing.T) {
	payload := func(m Method) []byte {
		f, _, _ := NextFrame(AppendMethod(nil, 1, m), 131072)
		return f.Payload
	}
	b := payload(&BasicPublish{"x", "key", true, true})
	var p Publish
	if err := ParsePublish(b, &p); err != nil || string(p.Exchange) != "x" || string(p.RoutingKey) != "key" || !p.Mandatory || !p.Immediate {
		t.Errorf("publish %+v, %v", p, err)
	}
	for i := range b {
		if err := ParsePublish(b[:i], &p); codeOf(err) != CodeFrameError {
			t.Errorf("publish cut at %d: %v", i, err)
		}
	}
	if err := ParsePublish(append(b[:len(b):len(b)], 0), &p); codeOf(err) != CodeFrameError {
		t.Errorf("a publish with one extra byte: %v", err)
	}
	if err := ParsePublish(payload(&BasicPublish{"\xff", "", false, false}), &p); codeOf(err) != CodeFrameError {
		t.Errorf("publish to a name that is not UTF-8: %v", err)
	}
	for _, tt := range []struct {
		m    Method
		want Settle
	}{
		{&BasicAck{5, true}, Settle{Tag: 5, Ack: true, Multiple: true}},
		{&BasicNack{5, true, false}, Settle{Tag: 5, Multiple: true}},
		{&BasicNack{5, false, true}, Settle{Tag: 5, Requeue: true}},
		{&BasicReject{5, true}, Settle{Tag: 5, Requeue: true}},
	} {
		b := payload(tt.m)
		if got, err := ParseSettle(tt.m.ID(), b); err != nil || got != tt.want {
			t.Errorf("%+v: %+v, %v", tt.m, got, err)
		}
		for i := range b {
			if _, err := ParseSettle(tt.m.ID(), b[:i]); codeOf(err) != CodeFrameError {
				t.Errorf("%T cut at %d: %v", tt.m, i, err)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = ParsePublish(b, &p) }); n != 0 {
		t.Errorf("parsing a publish allocates %v times", n)
	}
}

func TestUnknownMethods(t *testing.T) {
	for _, tt := range []struct {
		payload string
		code    Code
		text    string
	}{
		{"\x00\x00", CodeFrameError, "FRAME_ERROR - cannot decode <<0,0>>"},
		{"", CodeFrameError, "FRAME_ERROR - cannot decode <<>>"},
		{"\x00\x63\x00\x01", CodeCommandInvalid, "COMMAND_INVALID - unknown class 99"},
		{"\x00\x3c\x00\x63", CodeNotImplemented, "NOT_IMPLEMENTED - unknown method 99 of class 60"},
	} {
		_, err := ParseMethod([]byte(tt.payload))
		if codeOf(err) != tt.code || err.Error() != tt.text {
			t.Errorf("%q: %v", tt.payload, err)
		}
	}
}
