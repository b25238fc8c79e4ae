// Package topology has AMQP's view of virtual hosts: exchanges, bindings, routes, and the settings
// of queues that only AMQP has. It creates and deletes them, and stores the durable ones as
// metadata of the broker. It applies policies over their arguments. It finds the queues of a
// message, and passes dead letters on to their exchanges. It does not know connections: the owner
// of an exclusive queue is any comparable value.
//
//	goroutine               owns
//	dead letters            the subscription of a virtual host's passage; one for each host that has one
//	refused messages        the order of a virtual host's refusals; runs while there are some
//	sweeps                  nothing: each removes the records of one deletion
//
//	lock                    guards                                   locked before
//	Registry.mu             the list of virtual hosts                no other
//	Vhost stripes           the making of durable changes by name    Vhost.mu, and calls of the broker
//	Vhost.mu                exchanges, bindings, queues              no other; never held during a call of the broker
//	refusals, circles, deadLetterer: small types, each with its own lock
package topology
