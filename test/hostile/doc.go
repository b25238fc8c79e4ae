// Package hostile is what no honest client sends, and what a server must answer to it: 85 kinds of
// malformed or abusive AMQP 0-9-1 and 24 of HTTP, with the numbers of the project's list, as tables
// of raw bytes and short dialogues.
//
// The tables know the server by what it says on a socket and by nothing else. They have an encoder
// of their own and import no package of the server, so that a mistake in the server's codec cannot
// hide itself. The doors' tests play them against a server in their process, where memory and
// goroutines can be looked at too; the fault campaign plays them against a real `surgetank serve`.
//
// Each case is played as it stands, in segments of one byte, and cut after every byte, behind which
// the peer hangs up in order (FIN), breaks off (RST) or says nothing any more. A Bystander works
// beside all of it and must not notice.
package hostile
