// Package hostile has requests that no normal client sends, and the required answers: 85 kinds of
// malformed or abusive AMQP 0-9-1 and 24 of HTTP. They have the numbers of the project's list and
// are tables of raw bytes and short dialogues.
//
// The tables know only what a server sends on a socket. They have their own encoder and import no
// package of the server, so they do not share a mistake in the server's codec. The doors' tests run
// them against a server in the same process, where memory and goroutines can be checked too. The
// fault campaign runs them against a real `surgetank serve`.
//
// Each case is sent unchanged, in segments of one byte, and cut after every byte. After a cut the
// peer closes in order (FIN), resets (RST) or sends nothing more. A Bystander works at the same
// time and must not be affected.
package hostile
