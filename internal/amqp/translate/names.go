package translate

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
)

// Names that AMQP reserves.
const (
	ReservedPrefix  = "amq."                  // begins the names that clients cannot declare
	ReplyToQueue    = "amq.rabbitmq.reply-to" // the pseudo-queue of direct replies
	ReplyToPrefix   = ReplyToQueue + "."      // begins the routing keys of requesters
	TraceExchange   = "amq.rabbitmq.trace"    // exists for clients that look for it
	defaultResource = "amq.default"           // the default exchange's name in permissions
)

// CleanName removes carriage returns and line feeds, as RabbitMQ does from names of queues and
// exchanges.
func CleanName(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return s
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(s)
}

// RandomName returns prefix and 22 random characters that cannot be guessed.
func RandomName(prefix string) string {
	var b [16]byte
	rand.Read(b[:])
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// ResourceName returns an exchange's name in permissions.
func ResourceName(exchange string) string {
	if exchange == "" {
		return defaultResource
	}
	return exchange
}
