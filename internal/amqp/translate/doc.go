// Package translate translates between the words of AMQP 0-9-1 and those of the broker. No other
// package does. It covers queue arguments and settings, property blocks and messages, x-death and
// dead-letter history, and error codes. All functions except RandomName are pure: they keep no
// state, and call neither the broker nor the clock.
package translate
