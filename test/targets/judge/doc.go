// Package judge decides from the history of a finished round whether a sink kept its promise. Each
// confirmed message must be in the table once, or be accounted for. Otherwise the sink must have
// stopped with a message that says how many are missing.
//
// The judge is naive on purpose: it knows no batches, epochs or progress. It compares five things:
//
//	messages   what publishers sent, and which values a column may show for each
//	holds      which messages each data directory must know, also after the directory was put back in time
//	queues     what waits in each server's queue, and what it parked
//	applied    every write of a message into the table, in order, as recorded by a trigger in the table's database
//	rows       the table itself
//
// The trigger's notes are committed with the rows. So a target that is put back in time loses notes
// and rows together. A message with two notes was written twice, even if a later write of the same
// key replaced the first.
package judge
