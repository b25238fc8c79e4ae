package disklog

// runner runs the parts of a log: the writer, maintenance and the scrub. The parts themselves start
// no goroutine and do not wait.
type runner interface {
	// start is called when the log is open.
	start(l *Log)
	// write runs turns until turn returns false, because entries wait. The caller holds mu, and the
	// writer does not run.
	write(l *Log)
	// wantNext is called by the writer, which needs a next segment from maintenance.
	wantNext(l *Log)
	// trimmed is called after a trim that frees segments. writing means that the writer runs.
	trimmed(l *Log, writing bool)
	// stop waits until maintenance and the scrub have ended. Log.stop is closed.
	stop(l *Log)
	// zeros reports whether new segments are filled with zeros ahead.
	zeros() bool
	// permit waits until the scrub may read n bytes. It fails if the log was closed.
	permit(c *scrubber, n int) error
}

// goroutines is the runner of a log with goroutines of its own.
type goroutines struct {
	maintained chan struct{} // closed when maintenance has ended
	scrubbed   chan struct{} // closed when the scrub has ended
}

func newGoroutines() *goroutines {
	return &goroutines{maintained: make(chan struct{}), scrubbed: make(chan struct{})}
}

func (g *goroutines) start(l *Log) {
	go func() {
		defer close(g.maintained)
		l.maintainLoop()
	}()
	go func() {
		defer close(g.scrubbed)
		l.scrub.run()
	}()
}

func (g *goroutines) write(l *Log) {
	l.running = true
	go func() {
		for l.turn() {
		}
	}()
}

func (g *goroutines) wantNext(*Log)      {}
func (g *goroutines) trimmed(*Log, bool) {}
func (g *goroutines) zeros() bool        { return true }

func (g *goroutines) stop(*Log) {
	<-g.maintained
	<-g.scrubbed
}

func (g *goroutines) permit(c *scrubber, n int) error { return c.permit(n) }
