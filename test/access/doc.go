// Package access attacks a real server's access rules from outside. `go test` runs a short form;
// `go test ./test/access -attackers 200 -logins 50` runs longer:
//
//   - TestMatrix: every operation of each door by each role. The table lists the allowed roles; all
//     others are refused.
//   - TestExclusive: the operations of each door on a queue that is exclusive to an AMQP
//     connection.
//   - TestProxies: requests through a local proxy that adds no header, with and without users.
//   - TestLockout: attackers guess passwords on both doors while users log in.
//   - TestReadModifyWrite: operators change one queue at the same time.
//
// A program that embeds the broker is not in the tables: it owns its broker and has every right.
package access
