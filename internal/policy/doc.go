// Package policy changes the settings of queues by patterns of their names. So an operator can set
// features and limits of queues whose programs declare them without such settings.
//
// A policy says: in this virtual host, these settings apply to queues or exchanges whose names
// match this pattern. Of several matching policies, only the one with the highest priority applies.
// A queue's declaration and its policy combine: of two limits the lower one applies; for all other
// settings the declaration wins.
//
// A Broker is a door.Broker with policies; doors get it instead of the plain one. When a policy
// changes a queue, the Broker records the declared settings and sets the resulting ones in the
// queue:
//
//	declared with ──┐
//	                ├─▶ effective ──▶ the broker's queue
//	policy ─────────┘
//
// So the rules of queues stay in one place, and removing a policy restores the declaration. Some
// settings only a door can carry out: expiry of unused queues, dead-letter and alternate exchanges.
// They are stored here, and the door reads them.
//
// A Broker also enforces a virtual host's limit of queues, because every declaration goes through
// it, from every door.
package policy
