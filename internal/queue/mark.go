package queue

// Mark logs a fact of no account. Behind it a snapshot covers one entry more than the one before,
// so that two snapshots of an unchanged state can be kept, as of a state that changes.
type Mark struct{}

func (Mark) run(m *Machine) bool {
	m.out.Entry = append(m.out.Entry, byte(kindPad))
	m.out.Records++
	return true
}
