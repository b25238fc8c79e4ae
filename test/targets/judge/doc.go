// Package judge decides from the history of a finished round whether a sink kept its promise. Each
// confirmed message must be in the table once, or be parked, or wait. Otherwise the sink must have
// stopped with an error that says how many messages are missing.
//
// The judge is naive on purpose: it knows no batches, epochs or progress. It compares five things:
//
//	messages   what publishers sent, and which values a column may show for each
//	holds      which messages each data directory must contain, also after the directory was put back in time
//	queues     which messages wait in each server's queue, and which messages it parked
//	applied    every write of a message into the table, in order, as recorded by a trigger in the table's database
//	rows       the table itself
//
// The trigger's records are committed with the rows. So a target that is put back in time loses
// records and rows together. A message with two records was written twice, even if a later write of
// the same key replaced the first.
package judge
