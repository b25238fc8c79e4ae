//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"
)

func TestLeanConnKeepsOrderAndSendsAllOnClose(t *testing.T) {
	defer goleak.VerifyNone(t)
	near, far := net.Pipe()
	l := newLeanConn(near)
	var want []byte
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(far)
		got <- b
	}()
	for i := range 3000 { // more than the buffer's size, so writers wait too
		piece := bytes.Repeat([]byte{byte(i)}, i%97)
		want = append(want, piece...)
		if n, err := l.Write(piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, want) {
		t.Errorf("%d bytes came, %d were written, or their order changed", len(b), len(want))
	}
	if _, err := l.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after close gives %v", err)
	}
}

func TestLeanConnReportsFailure(t *testing.T) {
	defer goleak.VerifyNone(t)
	near, far := net.Pipe()
	l := newLeanConn(near)
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 1000 { // the first writes succeed before the failure is known; later the buffer would be full
		if _, err = l.Write(make([]byte, 1024)); err != nil {
			break
		}
	}
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to a connection whose other end is gone gives %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
