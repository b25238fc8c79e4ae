// Package door has the part of a broker that doors, sinks and policies need, and that programs which
// use Surgetank do not see. An embedded.Broker implements it behind its public methods: Of returns
// that part.
package door
