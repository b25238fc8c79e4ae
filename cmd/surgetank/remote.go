package main

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
)

// remote is the flag of every command that talks to a server.
type remote struct {
	Server string `placeholder:"URL" default:"http://127.0.0.1:8080" env:"SURGETANK_SERVER" help:"Server to talk to (http://USER:PASSWORD@HOST:PORT). Default ${default}; environment ${env}."`
}

// dial connects to the server. A server that is not there is an error at once: whoever types a command wants to know, and
// commands that must outlast a restart repeat by themselves, because they know what may be repeated.
func (r remote) dial() (surgetank.Broker, error) {
	return client.Dial(r.Server, client.Options{RetryFor: -1})
}

// with runs do against the server and closes the connection.
func (r remote) with(do func(surgetank.Broker) error) error {
	b, err := r.dial()
	if err != nil {
		return err
	}
	defer b.Close()
	return do(b)
}
