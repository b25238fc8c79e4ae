package topology

import (
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// These exchange types route each message to one of their bindings. RabbitMQ has them as plug-ins.
const (
	// kindHash sends messages with the same hash to the same binding. The binding key is its
	// weight.
	kindHash        = "x-consistent-hash"
	kindRandom      = "x-random"       // sends each message to a random binding
	kindLocalRandom = "x-local-random" // the same; on one server every queue is local

	argHashHeader   = "hash-header"
	argHashProperty = "hash-property"

	maxWeight = 1 << 20
)

// hashOn says which part of a message an x-consistent-hash exchange hashes: a header, a property,
// or, if neither is set, the routing key.
type hashOn struct{ header, property string }

// parseHashOn parses an exchange's arguments.
func parseHashOn(args wire.Table, where string) (h hashOn, err error) {
	for name, into := range map[string]*string{argHashHeader: &h.header, argHashProperty: &h.property} {
		v, ok := args.Get(name)
		if !ok {
			continue
		}
		s, ok := v.Str()
		if !ok || len(s) == 0 || len(s) > 255 {
			return h, translate.InvalidArg(name, where, "expected the name of one as a longstr")
		}
		*into = string(s)
	}
	switch h.property {
	case "", "correlation_id", "message_id", "timestamp":
	default:
		return h, wire.Errorf(wire.CodePreconditionFailed, "Unsupported property '%s' for argument '%s'; expected correlation_id, message_id or timestamp", h.property, argHashProperty)
	}
	if h.header != "" && h.property != "" {
		return h, wire.Errorf(wire.CodePreconditionFailed, "'%s' and '%s' are mutually exclusive", argHashHeader, argHashProperty)
	}
	return h, nil
}

// of returns the part of a message that is hashed, as text. If the message does not have the part,
// it returns "".
func (h hashOn) of(key string, p *wire.Properties) string {
	switch {
	case h.header != "":
		if p != nil {
			if v, ok := p.Headers.Get(h.header); ok {
				return hashed(v)
			}
		}
		return ""
	case p == nil && h.property != "":
		return ""
	case h.property == "correlation_id":
		return string(p.CorrelationID)
	case h.property == "message_id":
		return string(p.MessageID)
	case h.property == "timestamp":
		return strconv.FormatUint(p.Timestamp, 10)
	}
	return key
}

// hashed returns the text of a header's value to hash: the text of a scalar, or the bytes of a
// table or an array. Void hashes like a missing header.
func hashed(v wire.Value) string {
	switch v.Tag {
	case 'V':
		return ""
	case 'F', 'A':
		return string(v.Tag) + string(v.Data)
	}
	return translate.ShowValue(v)
}

// parseWeight parses the key of a binding to an x-consistent-hash exchange.
func parseWeight(key string) (float64, error) {
	n, err := strconv.ParseInt(key, 10, 64)
	if err != nil || n < 0 {
		return 0, wire.Errorf(wire.CodePreconditionFailed, "The binding key must be an integer: %s", key)
	}
	if n > maxWeight {
		return 0, wire.Errorf(wire.CodePreconditionFailed, "The binding key must be an integer of at most %d: %s", maxWeight, key)
	}
	return float64(n), nil
}

// pickByHash chooses the binding for a value by weighted rendezvous hashing (Schindelhauer and
// Schomaker, "Weighted Distributed Hash Tables", 2005). Each binding gets a score from the value
// and its own id, and the highest score wins. If a binding is added or removed, only the messages
// of its share move. After a restart, equal values still go to the same bindings.
func pickByHash(bindings map[string]*binding, value string) *binding {
	var best *binding
	var most float64
	for id, b := range bindings {
		if b.weight == 0 {
			continue
		}
		u := (float64(hash64(id, value)>>11) + 0.5) / (1 << 53) // in (0, 1)
		score := -b.weight / math.Log(u)
		if best == nil || score > most || score == most && id < best.id {
			best, most = b, score
		}
	}
	return best
}

// hash64 is FNV-1a (Fowler, Noll, Vo) over both parts with the finalizer of MurmurHash3. Without
// the finalizer, values that differ only at their end would get similar scores. The function must
// never change, because it decides which binding gets a message.
func hash64(a, b string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(a) {
		h = (h ^ uint64(a[i])) * 1099511628211
	}
	h = (h ^ 0xff) * 1099511628211
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// pickAny returns a random binding, each with the same probability, or nil if there are none.
func (x *Exchange) pickAny() *binding {
	if len(x.list) == 0 {
		return nil
	}
	return x.list[rand.IntN(len(x.list))]
}
