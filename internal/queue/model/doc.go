// Package model is the queue rules once more, written from what the settings promise and not from
// the machine: slices and scans instead of heaps and lists, no records, no log. It and the machine
// must always agree. Tests run the two side by side: the machine's own with random scripts, the
// simulator's with the whole broker. Nothing else imports it.
package model
