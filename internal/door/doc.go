// Package door has what doors, sinks and the policies in front of the broker need, and what programs
// that use Surgetank do not see.
package door
