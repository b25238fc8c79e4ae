package demo

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/surgetank/surgetank/cmd/surgetank/internal/feed"
)

// orders is a source of invented orders, the same ones in every run.
type orders struct {
	n, total int64
	rng      *rand.Rand
	buf      []byte
}

func newOrders(total int64) *orders {
	return &orders{total: total, rng: rand.New(rand.NewPCG(20, 26))}
}

var items = [...]string{"lamp", "desk", "chair", "shelf", "clock", "kettle", "rug", "mirror"}

// Next returns the next order.
func (o *orders) Next() (feed.Line, bool, error) {
	if o.n >= o.total {
		return feed.Line{}, false, nil
	}
	o.n++
	quantity := 1 + o.rng.IntN(5)
	cents := quantity * (500 + o.rng.IntN(20_000))
	b := o.buf[:0]
	b = append(b, `{"id":`...)
	b = strconv.AppendInt(b, o.n, 10)
	// A few customers order much and most order little, as in real life.
	customer := int(o.rng.ExpFloat64() * 800)
	b = fmt.Appendf(b, `,"customer":"c-%05d","item":%q,"quantity":%d,"total":%d.%02d}`,
		customer, items[o.rng.IntN(len(items))], quantity, cents/100, cents%100)
	o.buf = b
	return feed.Line{N: o.n, Body: append([]byte(nil), b...), At: o.n}, true, nil
}
