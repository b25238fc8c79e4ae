// Package kit has no code. Its subpackages are the parts of every campaign against a real server:
//
//	server     runs `surgetank serve`: builds, starts, kills and restarts it
//	client     HTTP and AMQP clients that distinguish certain outcomes from uncertain ones
//	proxy      network faults between clients and a server
//	load       messages whose every byte can be checked, and waits
//	history    a journal of every call, judged at the end of a run
//	proc       what a process uses: memory, descriptors, disk
//	report     dated files of results
//
// A campaign adds its faults, its own mix of clients, and its table of results.
package kit
