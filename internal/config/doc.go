// Package config reads the file that `surgetank apply`, `check` and `serve --config` share. It is
// YAML with the sections server, queues and sinks. All mistakes are reported at once, each with its
// line and column, and unknown keys are mistakes. Packages settings and sink define the settings of
// queues and sinks, from the same JSON that the HTTP interface accepts. So a file can set exactly
// the same settings as the API.
package config
