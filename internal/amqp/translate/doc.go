// Package translate is the one place where the words of AMQP 0-9-1 meet those of the broker: queue
// arguments and queue settings, property blocks and messages, x-death and dead-letter history,
// error codes. RandomName aside, its functions are pure: they keep nothing, and they call neither
// the broker nor the clock.
package translate
