// Package fenced is a log on a replicated stream that many processes can write to. One of them is
// the owner. A new owner fences the older one, and the stream's readers ignore what a fenced owner
// still writes. The package has no I/O of its own: a Stream does that. Package jetlog has the
// Stream on NATS JetStream, and package model has one for tests.
//
// # The stream
//
// Owner A appends blobs. Owner B fences A at position 4. Two appends of A are still in flight.
//
//	position   1        2        3        4        5          6          7
//	         ┌────────┬────────┬────────┬────────┬──────────┬──────────┬────────┐
//	         │ F  A   │ B  1/1 │ B  1/2 │ F  B   │ B  1/4   │ B  1/5   │ F  B   │ …
//	         └────────┴────────┴────────┴────────┴──────────┴──────────┴────────┘
//	           epoch 1  valid    valid    epoch 4  void: the epoch is not 4      epoch 7
//
// B 1/2 is the second blob of epoch 1. A's blob 1/3 was refused, because position 4 was occupied.
// A's blob 1/4 was sent at the same time. It names position 4 as the end of the stream, so the
// stream accepts it and confirms it. This is why readers check epochs, and why an owner believes a
// confirmation only if all earlier blobs of the epoch are confirmed.
//
// # The rules
//
//	Rule     An F record at position s begins epoch s. A blob is valid if it names the present
//	         epoch and its number follows the number of the last valid blob, which begins with 1.
//	         All other blobs are void. Replay and the live log use the same code.
//	Append   Blob n of epoch e is sent with the condition that the stream ends at e+n-1.
//	Prefix   A blob is durable when the blobs 1 to n of its epoch are confirmed, each at e+n.
//	Resync   After an error, a wrong position, silence or a change of leader: read what was stored,
//	         append an F with a condition, and send the rest again in the new epoch, from 1 on. A
//	         blob is never sent twice in one epoch. A foreign F means that the log is lost.
//	Open     A new owner appends an F without a condition. An owner that still writes cannot
//	         prevent this. Everything before this F is final.
//	Trim     The stream is cut only behind a snapshot whose S record is durable in the log. So
//	         each later owner finds that snapshot.
//
// # States of an open log
//
//	             F stored                 error, silence, new leader
//	opening ────────────────► sending ────────────────────────────────► resync
//	                             ▲                                        │ │
//	                             └──────────── F stored ──────────────────┘ │
//	                                                                        ▼
//	                           foreign F: fenced          no answer for GiveUp: failed
//
// An entry of the log is one blob, or several if it is large. The entry's offset is the position of
// its first blob. Blobs of one entry have consecutive numbers in one epoch. An F between them makes
// the entry void, and its owner sends all of it again.
package fenced
