package queue

// Mark logs a fact of no account. Behind it a snapshot covers one entry more than the one before, so that two snapshots
// of an unchanged state can be kept, as of a state that changes.
type Mark struct{}

func (Mark) run(m *Machine) bool {
	m.out.Entry = append(m.out.Entry, byte(kindPad))
	m.out.Records++
	return true
}

// StateSize estimates the bytes of a snapshot.
func (m *Machine) StateSize() (bytes int64) {
	const queueCost, slotCost, timeCost, idCost = 256, 24, 16, 32
	for _, q := range m.order {
		bytes += queueCost + slotCost*(q.waiting+q.delayedN+q.leased+q.damagedN) + timeCost*int64(len(q.delayed)+len(q.ttl)+len(q.flows)+len(q.notes)) +
			idCost*int64(len(q.dedup.line)-q.dedup.head)
	}
	for _, names := range m.meta { // unordered: a sum
		for name, value := range names { // unordered: a sum
			bytes += int64(len(name) + len(value))
		}
	}
	return bytes
}
