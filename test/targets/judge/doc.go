// Package judge decides, from the history of a finished round alone, whether a sink kept its
// promise: each confirmed message is in the table once, or is accounted for, or the sink has
// stopped and its words say how many are not.
//
// The judge is naive on purpose. It knows no batches, epochs or progress. It compares five things:
//
//	messages   what publishers sent, and which values a column may show for each
//	holds      which messages each data directory must know, also after the directory was put back in time
//	queues     what waits in each server's queue, and what it parked
//	applied    every write of a message into the table, in order, as a trigger in the table's database noted it
//	rows       the table itself
//
// The notes of the trigger are committed with the rows. So a target that is put back in time loses
// notes and rows alike, and a message with two notes was written twice, also where a later write of
// the same key hides the first.
package judge
