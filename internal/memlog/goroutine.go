package memlog

// start starts the log's goroutine if the log has one, work waits, and it does not run. store.mu is
// held.
func (l *Log) start() {
	if !l.goroutine || l.running || len(l.queue) == 0 {
		return
	}
	l.running = true
	go l.work()
}

// work stores entries until none is left.
func (l *Log) work() {
	s := l.store
	for {
		for l.pump(-1) > 0 {
		}
		s.mu.Lock()
		if len(l.queue) == 0 {
			l.running = false
			l.idle.Broadcast()
			s.mu.Unlock()
			return
		}
		due := l.queue[0].due
		s.mu.Unlock()
		if l.o.Latency <= 0 { // the entry was appended after pump, and is due now
			continue
		}
		timer := l.o.Clock.NewTimer(due - l.o.Clock.Passed())
		select {
		case <-timer.C():
		case <-l.crash:
		}
		timer.Stop()
	}
}
