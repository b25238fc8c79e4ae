package translate

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
)

// oldOpaque is the opaque part of a message that was stored before the newer form existed, and
// oldHeaders are its headers.
const oldOpaque = "6100066f7264657273bcd0106170706c69636174696f6e2f6a736f6e0000004008637573746f6d6572530000000461636d65016e6cfffffffffffffff9037965" +
	"737401037261775300000004636166e9046c6973744100000006530000000178020303632d31036d2d31000000006553f100056775657374"

var oldHeaders = []surgetank.Header{{Name: "correlation-id", Value: "c-1"}, {Name: "message-id", Value: "m-1"}, {Name: "customer", Value: "acme"},
	{Name: "n", Value: "-7"}, {Name: "yes", Value: "true"}, {Name: "raw", Value: "base64:Y2Fm6Q=="}}

func oldBlock(t *testing.T) (opaque, block []byte) {
	t.Helper()
	opaque, err := hex.DecodeString(oldOpaque)
	if err != nil {
		t.Fatal(err)
	}
	return opaque, opaque[len("a\x00\x06orders"):]
}

// TestMessagesOfTheOlderFormAreRead: a message that an earlier version stored has the same
// properties when it is read.
func TestMessagesOfTheOlderFormAreRead(t *testing.T) {
	opaque, block := oldBlock(t)
	d := &surgetank.Delivery{Message: surgetank.Message{ContentType: "application/json", Key: "k", Headers: oldHeaders}}
	*door.Opaque(&d.Message) = opaque
	exchange, key, got, _ := Outgoing(d, false, nil)
	if string(exchange) != "orders" || key != "k" || !bytes.Equal(got, block) {
		t.Errorf("exchange %q, key %q, block %x; want %x", exchange, key, got, block)
	}
}

// TestHeadersAreStoredOnce: the headers that other doors see are not in the opaque part too. They
// are the same as in the older form.
func TestHeadersAreStoredOnce(t *testing.T) {
	opaque, block := oldBlock(t)
	c, err := ParseContent("orders", block)
	if err != nil {
		t.Fatal(err)
	}
	m := c.Template
	amqptest.Same(t, m.Headers, oldHeaders)
	for _, once := range []string{"application/json", "c-1", "m-1", "customer", "acme", "yes"} {
		if bytes.Contains(*door.Opaque(&m), []byte(once)) {
			t.Errorf("the opaque part repeats %q: %q", once, *door.Opaque(&m))
		}
	}
	t.Logf("the opaque part has %d bytes; the older form had %d", len(*door.Opaque(&m)), len(opaque))
	f, _, ok := ReadStored(&m, nil)
	if !ok || string(f.Exchange) != "orders" || !bytes.Equal(f.Block, block) {
		t.Errorf("read again: %v %q %x, want %x", ok, f.Exchange, f.Block, block)
	}
}

// TestChangedHeadersAreAnotherDoors: if headers were added, removed or renamed, the headers are
// used and the opaque part is ignored.
func TestChangedHeadersAreAnotherDoors(t *testing.T) {
	_, block := oldBlock(t)
	c, err := ParseContent("orders", block)
	if err != nil {
		t.Fatal(err)
	}
	for name, headers := range map[string][]surgetank.Header{
		"none": nil, "fewer": oldHeaders[:3], "more": append(oldHeaders[:len(oldHeaders):len(oldHeaders)], surgetank.Header{Name: "new", Value: "v"}),
		"renamed": append([]surgetank.Header{{Name: "other", Value: "v"}}, oldHeaders[1:]...),
	} {
		m := c.Template
		m.Headers = headers
		if _, _, ok := ReadStored(&m, nil); ok {
			t.Errorf("%s: changed headers count as the published ones", name)
		}
		d := &surgetank.Delivery{Message: m, Queue: "q"}
		exchange, _, got, _ := Outgoing(d, false, nil)
		p, err := wire.ParseProperties(got)
		if err != nil || len(exchange) > 0 {
			t.Fatalf("%s: exchange %q, %v", name, exchange, err)
		}
		for _, h := range headers {
			v, _ := p.Headers.Get(h.Name)
			if !bytes.Equal(v.Data, []byte(h.Value)) && string(p.CorrelationID) != h.Value && string(p.MessageID) != h.Value {
				t.Errorf("%s: header %s is lost", name, h.Name)
			}
		}
	}
}

// TestStoredBlocksComeBack: every property block is rebuilt byte for byte, and its stored form is
// within the limits of a message.
func TestStoredBlocksComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProperties(t)
		block := p.Append(nil)
		exchange := rapid.StringN(0, 40, 255).Draw(t, "exchange")
		c, err := ParseContent(exchange, block)
		if err != nil {
			t.Skip() // the TTL, delay or key is refused
		}
		m := c.Template
		size := len(*door.Opaque(&m)) + len(m.ContentType)
		for _, h := range m.Headers {
			size += len(h.Name) + len(h.Value)
		}
		if size > surgetank.MaxHeaderBytes || len(m.Headers) > surgetank.MaxHeaders {
			t.Fatalf("%d bytes in %d headers", size, len(m.Headers))
		}
		scratch := bytes.Repeat([]byte{0xee}, rapid.IntRange(0, 300).Draw(t, "scratch"))
		f, _, ok := ReadStored(&m, scratch)
		if !ok || string(f.Exchange) != exchange || !bytes.Equal(f.Block, c.Shown) {
			t.Fatalf("%q: %v, exchange %q\n got %x\nwant %x", *door.Opaque(&m), ok, f.Exchange, f.Block, c.Shown)
		}
		if whole := 3 + len(exchange) + len(c.Shown); len(*door.Opaque(&m)) > whole {
			t.Fatalf("%d bytes for a block of %d", len(*door.Opaque(&m)), whole)
		}
		all := textHeaders(&p, 1<<30)
		if len(all) > len(m.Headers) && size+512 < surgetank.MaxHeaderBytes && len(m.Headers) < surgetank.MaxHeaders {
			t.Fatalf("%d of %d headers are shown", len(m.Headers), len(all))
		}
	})
}

func drawProperties(t *rapid.T) (p wire.Properties) {
	for _, f := range propertyHeaders {
		if rapid.Bool().Draw(t, f.name) {
			p.SetString(f.flag, f.field(&p), []byte(rapid.StringN(0, 20, 255).Draw(t, "value")))
		}
	}
	if rapid.Bool().Draw(t, "type") {
		p.SetString(wire.HasContentType, &p.ContentType, []byte("text/plain"))
	}
	for _, flag := range []uint16{wire.HasHeaders, wire.HasDeliveryMode, wire.HasPriority, wire.HasTimestamp} {
		if rapid.Bool().Draw(t, "flag") {
			p.Flags |= flag
		}
	}
	p.DeliveryMode, p.Timestamp = 2, 1<<40
	if p.Flags&wire.HasHeaders == 0 {
		return p
	}
	sizes := map[byte]int{'V': 0, 't': 1, 'b': 1, 'B': 1, 's': 2, 'u': 2, 'I': 4, 'i': 4, 'f': 4, 'D': 5, 'l': 8, 'L': 8, 'd': 8, 'T': 8}
	tags := []byte("VtbBsuIifDlLdTSxSx")
	for i := range rapid.SampledFrom([]int{0, 1, 3, 10, 300, 4000}).Draw(t, "fields") {
		tag := rapid.SampledFrom(tags).Draw(t, "tag")
		n, fixed := sizes[tag]
		if !fixed {
			n = rapid.IntRange(0, 30).Draw(t, "length")
		}
		name := rapid.SampledFrom([]string{"", "a", "same", "größe", fmt.Sprint("n", i), strings.Repeat("x", 255)}).Draw(t, "name")
		p.Headers = p.Headers.Add(name, wire.Value{Tag: tag, Data: rapid.SliceOfN(rapid.OneOf(rapid.Byte(), rapid.ByteRange('0', '9')), n, n).Draw(t, "data")})
	}
	p.Headers = p.Headers.AddTable("nested", wire.Table(nil).AddString("k", "v"))
	return p
}

// FuzzStored reads opaque parts of any bytes.
func FuzzStored(f *testing.F) {
	opaque, _ := hex.DecodeString(oldOpaque)
	f.Add(opaque, "text/plain", "n", "v", 3)
	c, err := ParseContent("orders", opaque[len("a\x00\x06orders"):])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(*door.Opaque(&c.Template), "application/json", "customer", "acme", 6)
	f.Fuzz(func(t *testing.T, opaque []byte, contentType, name, value string, headers int) {
		m := surgetank.Message{ContentType: contentType}
		*door.Opaque(&m) = opaque
		for range headers & 15 {
			m.Headers = append(m.Headers, surgetank.Header{Name: name, Value: value})
		}
		s, _, ok := ReadStored(&m, nil)
		if ok && len(s.Block) > len(opaque)+len(contentType)+16*(len(name)+len(value)+16)+16 {
			t.Errorf("%d bytes out of %d", len(s.Block), len(opaque))
		}
	})
}
