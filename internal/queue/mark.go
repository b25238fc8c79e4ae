package queue

// Mark logs a record without effect. After it, a new snapshot covers one entry more than the
// previous one, so two snapshots of an unchanged state can be kept side by side.
type Mark struct{}

func (Mark) run(m *Machine) bool {
	m.out.Entry = append(m.out.Entry, byte(kindPad))
	m.out.Records++
	return true
}
