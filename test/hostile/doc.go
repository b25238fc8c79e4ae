// Package hostile has requests that no normal client sends, and the required answers: 85 numbered
// kinds of malformed or abusive AMQP 0-9-1, and 24 kinds of HTTP. The cases are tables of raw bytes
// and short dialogues.
//
// The cases judge a server only by its bytes on the socket. The package has its own encoder and
// imports no package of the server, so it does not share a mistake in the server's codec. The tests
// of the AMQP and HTTP doors run the cases against a server in the same process, where memory and
// goroutines can be checked too. The fault campaign runs the cases against a real
// `surgetank serve`.
//
// Each case is sent whole, in segments of one byte, and cut after every byte. After a cut the peer
// closes in order (FIN), resets (RST) or sends nothing more. A Bystander, a normal client, works at
// the same time and must not be affected.
package hostile
