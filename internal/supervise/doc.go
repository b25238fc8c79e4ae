// Package supervise keeps a broker usable when its log fails. A Supervisor is a door.Broker in front
// of a broker. After a passing failure, such as a full disk or a lost mount, it closes the broker
// and opens another one on the same data. Connections, subscriptions and workers stay.
//
//	doors, sinks, programs
//	        │
//	   Supervisor        opening ──► serving ──► opening ──► … ──► failed, closed
//	        │
//	   one opening at a time (internal/broker) on one log
//
// # What callers see
//
// The calls in progress at a failure get CodeUncertain, because their outcome is not known. Calls
// that only read are repeated. While no opening serves, calls wait for a bounded time and in bounded
// number; then they get CodeUnavailable, and nothing was done.
//
// A new opening ends every lease. So a settlement with a receipt of an earlier opening gets
// CodeLeaseLost, at once and without a wait. The messages are delivered again.
//
// Subscriptions are attached to the new opening before any waiting call continues, in the order in
// which they were made. So an exclusive subscription stays exclusive.
//
// # Locks
//
// Supervisor.mu, then subscription.mu. No call to a broker is made under Supervisor.mu. Under
// subscription.mu only calls are made that do not wait.
package supervise
