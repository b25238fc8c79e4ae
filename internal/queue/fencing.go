package queue

// leaseBits is how many bits of a fencing token count the leases of one opening. The bits above
// them are the epoch, so a token fits a signed 64-bit integer for maxTokenEpoch openings.
//
// Beyond these numbers a lease has no token, because a new epoch would end all leases. The numbers
// are out of reach. 2^44 leases last for 200 days at a million a second, and for more than three
// years at the highest rate that was measured. 524,287 openings are one each minute for a year. A
// restart begins to count the leases again.
const (
	leaseBits     = 44
	maxTokenEpoch = 1<<(63-leaseBits) - 1
)

// fencingToken returns the fencing token of a lease on a message of a flow; 0 if there is none.
//
// Every later lease of the machine has a higher number, and every later opening a higher epoch. So
// the tokens of one group grow in the order of its hand-outs, also across restarts. A target that
// stores the highest token of a group can refuse a consumer whose lease has ended. Only a strict
// group has tokens: leases of one group that run at the same time would refuse each other.
func (q *Queue) fencingToken(h uint32, lease uint64) int64 {
	if !q.strict(h) || q.tokenEpoch() > maxTokenEpoch || lease >= 1<<leaseBits {
		return 0
	}
	return int64(q.tokenEpoch()<<leaseBits | lease)
}
