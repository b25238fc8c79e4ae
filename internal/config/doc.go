// Package config reads the file that `surgetank apply`, `check` and `serve --config` share: YAML
// with a server, a queues and a sinks section. It knows positions: every mistake is reported with
// its line and column, all of them at once, and unknown keys are mistakes. What a queue's or a
// sink's settings mean is decided elsewhere (package settings and package sink), from the same JSON
// that the HTTP interface takes, so that a file can say exactly what the API can.
package config
