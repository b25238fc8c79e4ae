// Package access attacks a real server's access rules from outside, in a short form with `go test`
// and longer with `go test ./test/access -attackers 200 -logins 50`:
//
//   - TestMatrix: every operation of each door by each role. The table says who may; everybody else
//     is refused.
//   - TestExclusive: the operations of each door on a queue that is exclusive to an AMQP
//     connection.
//   - TestProxies: what gets through a local proxy that adds no header, with and without users.
//   - TestLockout: strangers who guess passwords on both doors, and users who log in meanwhile.
//   - TestReadModifyWrite: operators who change one queue at the same moment.
//
// A program that embeds the broker is not in the tables: it owns its broker and has every right.
package access
