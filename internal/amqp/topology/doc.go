// Package topology has what AMQP knows of virtual hosts: exchanges, bindings, routes, and what AMQP
// says of queues beside the broker's settings. It makes and deletes them, keeps the durable ones as
// metadata of the broker, puts policies over their arguments, finds the queues of a message, and
// passes dead letters on to their exchanges. It knows no connection: the owner of an exclusive
// queue is any value that can be compared.
//
//	goroutine               owns
//	dead letters            the subscription of a virtual host's passage; one for each host that has one
//	refused messages        the order of a virtual host's refusals; runs while there are some
//	sweeps                  nothing: each removes the records of one deletion
//
//	lock                    guards                                   taken before
//	Registry.mu             the list of virtual hosts                no other
//	Vhost stripes           the making of durable changes by name    Vhost.mu, and calls of the broker
//	Vhost.mu                exchanges, bindings, queues              no other; never held during a call of the broker
//	refusals, circles, deadLetterer: small accounts with a lock of their own
package topology
