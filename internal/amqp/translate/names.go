package translate

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
)

// Names that AMQP reserves.
const (
	ReservedPrefix  = "amq."                  // of names that clients cannot declare
	ReplyToQueue    = "amq.rabbitmq.reply-to" // the pseudo-queue of direct replies
	ReplyToPrefix   = ReplyToQueue + "."      // of the keys that lead to a requester
	TraceExchange   = "amq.rabbitmq.trace"    // there for clients that look for it
	defaultResource = "amq.default"           // the default exchange's name in permissions
)

// CleanName drops carriage returns and line feeds, as RabbitMQ does with names of queues and
// exchanges.
func CleanName(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return s
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(s)
}

// RandomName gives prefix and 22 characters that nobody can guess.
func RandomName(prefix string) string {
	var b [16]byte
	rand.Read(b[:])
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// ResourceName is an exchange's name as permissions know it.
func ResourceName(exchange string) string {
	if exchange == "" {
		return defaultResource
	}
	return exchange
}
