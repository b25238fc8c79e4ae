//go:build linux

package main

import (
	"runtime"
	"time"

	"github.com/surgetank/surgetank/test/kit/histogram"
)

// meter has the counters at the start of a measurement.
type meter struct {
	server                *server
	start                 time.Time
	serverCPU, clientCPU  float64
	machineCPU            float64
	deviceBytes, deviceFl int64
}

func newMeter(s *server) *meter {
	m := &meter{server: s, clientCPU: ownCPU(), machineCPU: machineCPU()}
	if pid := s.pid(); pid != 0 {
		m.serverCPU = treeCPU(pid)
	}
	m.deviceBytes, m.deviceFl = deviceCounters()
	m.start = time.Now()
	return m
}

// finish reads the counters again after n messages.
func (m *meter) finish(n int64, latency *histogram.Histogram) result {
	seconds := time.Since(m.start).Seconds()
	r := result{Cores: runtime.NumCPU(), Seconds: seconds, Messages: n, Rate: float64(n) / seconds, P50: latency.Millis(.5), P99: latency.Millis(.99)}
	server := 0.0
	if pid := m.server.pid(); pid != 0 {
		server = treeCPU(pid) - m.serverCPU
	}
	client := ownCPU() - m.clientCPU
	r.ServerCores, r.ClientCores = server/seconds, client/seconds
	r.OtherCores = max(0, (machineCPU()-m.machineCPU-server-client)/seconds)
	if n > 0 {
		r.ServerCPU, r.ClientCPU = server/float64(n)*1e6, client/float64(n)*1e6
	}
	written, flushes := deviceCounters()
	r.DiskMBps, r.Flushes = float64(written-m.deviceBytes)/seconds/1e6, float64(flushes-m.deviceFl)/seconds
	return r
}
