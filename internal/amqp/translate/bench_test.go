package translate

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// BenchmarkOutgoing rebuilds the property block of a delivery, as the writer does.
func BenchmarkOutgoing(b *testing.B) {
	plain := wire.Properties{Flags: wire.HasContentType | wire.HasDeliveryMode, ContentType: []byte("application/octet-stream"), DeliveryMode: 2}
	rich := plain
	rich.SetString(wire.HasCorrelationID, &rich.CorrelationID, []byte("c-1"))
	rich.Flags |= wire.HasHeaders
	rich.Headers = wire.Table(nil).AddString("customer", "acme").AddInt("n", -7).AddBool("yes", true).AddString("trace", "0123456789abcdef")
	for name, p := range map[string]wire.Properties{"plain": plain, "headers": rich} {
		b.Run(name, func(b *testing.B) {
			c, err := ParseContent("orders", p.Append(nil))
			if err != nil {
				b.Fatal(err)
			}
			d := &surgetank.Delivery{Message: c.Template}
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				_, _, _, buf = Outgoing(d, false, buf)
			}
		})
	}
}
