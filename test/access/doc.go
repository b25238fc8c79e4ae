// Package access attacks a real server's access rules from outside. `go test` runs a short form;
// `go test ./test/access -attackers 200 -logins 50` runs longer:
//
//   - TestMatrix: each role tries every operation over HTTP and AMQP. A table lists the allowed
//     roles; all other roles must be refused.
//   - TestExclusive: other connections try every operation on a queue that is exclusive to an AMQP
//     connection.
//   - TestProxies: clients send requests through a local proxy that adds no header, with and
//     without users on the server.
//   - TestLockout: attackers guess passwords over HTTP and AMQP while users log in.
//   - TestReadModifyWrite: several operators change one queue at the same time.
//
// A program that embeds the broker is not in the tables, because it has every right.
package access
