// Package flow runs the examples of docs/flow-control.md as a user would: with a server, its doors
// and a real database.
package flow
