// Package policy changes the settings of queues by patterns of their names, so that an operator can
// give features and limits to queues whose programs declare them plainly and know of none.
//
// A policy says: in this virtual host, to queues or exchanges whose names match this pattern, these
// settings apply. Of several that match the one with the highest priority applies, alone. What a
// queue was declared with and its policy combine: of two limits the lower holds, for all else the
// declaration wins.
//
// A Broker is a surgetank.Broker with policies in front; doors get it instead of the plain one. It
// keeps the settings that a queue was declared with in its own records as soon as a policy changes
// them, and gives the queue itself those that result:
//
//	declared with ──┐
//	                ├─▶ effective ──▶ the broker's queue
//	policy ─────────┘
//
// So rules of queues stay in one place, and taking a policy away brings back what was declared.
// Settings that only a door can carry out (expiry of unused queues, dead-letter and alternate
// exchanges) are kept here and asked for by that door.
//
// A Broker also holds the limit of queues of a virtual host: every declaration comes through it,
// whatever the door.
package policy
