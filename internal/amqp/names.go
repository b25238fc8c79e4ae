package amqp

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
)

// Names that AMQP reserves.
const (
	reservedPrefix  = "amq."
	replyToQueue    = "amq.rabbitmq.reply-to"
	replyToPrefix   = replyToQueue + "."
	traceExchange   = "amq.rabbitmq.trace"
	defaultResource = "amq.default" // the default exchange's name in permissions
)

// cleanName drops carriage returns and line feeds, as RabbitMQ does with names of queues and exchanges.
func cleanName(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return s
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(s)
}

// randomName gives prefix and 22 characters that nobody can guess.
func randomName(prefix string) string {
	var b [16]byte
	rand.Read(b[:])
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// resourceName is an exchange's name as permissions know it.
func resourceName(exchange string) string {
	if exchange == "" {
		return defaultResource
	}
	return exchange
}
