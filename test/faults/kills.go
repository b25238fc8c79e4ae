//go:build linux

package main

import (
	"context"
	"syscall"
	"time"
)

// killRandomly kills the server at random moments, sometimes soon after its start.
func killRandomly(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{amqp: 2}); err != nil {
		return err
	}
	for range r.times(6, 200) {
		if err := r.sleep(ctx, r.between(time.Millisecond, 300*time.Millisecond)); err != nil {
			return err
		}
		r.inject("kill")
		r.server.Kill()
		if err := r.sleep(ctx, r.between(0, 50*time.Millisecond)); err != nil {
			return err
		}
		if err := r.server.Start(ctx); err != nil {
			return err
		}
	}
	return r.end(ctx)
}

// stopAndContinue freezes the server for longer than a lease. Afterwards every lease must have
// ended once, and no message may be leased twice.
func stopAndContinue(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{lease: 300 * time.Millisecond, amqp: 1}); err != nil {
		return err
	}
	for range r.times(3, 60) {
		if err := r.sleep(ctx, r.between(50*time.Millisecond, 300*time.Millisecond)); err != nil {
			return err
		}
		r.inject("stop")
		r.server.Signal(syscall.SIGSTOP)
		err := r.sleep(ctx, r.between(350*time.Millisecond, 700*time.Millisecond))
		r.server.Signal(syscall.SIGCONT)
		if err != nil {
			return err
		}
		if !r.progress(ctx, 20, 10*time.Second) {
			r.fail("progress", "no 20 messages were confirmed within 10 s after the server went on")
		}
	}
	return r.end(ctx)
}

// terminate asks the server to stop while it is busy. The server must exit with 0 and keep
// everything that it confirmed.
func terminate(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{size: 12000, amqp: 2}); err != nil { // enough data for a snapshot before some of the stops
		return err
	}
	for range r.times(4, 100) {
		if err := r.sleep(ctx, r.between(20*time.Millisecond, 300*time.Millisecond)); err != nil {
			return err
		}
		r.inject("terminate")
		r.server.Signal(syscall.SIGTERM)
		code, err := r.server.Wait(ctx)
		if err != nil {
			return err
		}
		if code != 0 {
			r.fail("exit", "SIGTERM under load ended with exit code %d: %s", code, r.server.Tail(300))
		}
		if err := r.server.Start(ctx); err != nil {
			return err
		}
	}
	return r.end(ctx)
}
