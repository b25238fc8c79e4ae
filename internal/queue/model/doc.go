// Package model implements the queue rules a second time. It follows the promises of the settings
// and not the machine: slices and scans instead of heaps and lists, no records, no log. Model and
// machine must always agree. Tests run both side by side: the machine's own tests with random
// scripts, the simulator's with the whole broker. Nothing else imports the package.
package model
