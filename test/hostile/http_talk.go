package hostile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// httpTalks are the cases that need more than one answer.
var httpTalks = []HTTPCase{
	{1, "chunked body above the limit", "", nil, endlessChunks},
	{3, "length and chunks", "", nil, smuggle("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
	{3, "length and chunks the other way round", "", nil, smuggle("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
	{5, "a header byte now and then", "", nil, dribble("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", "y")},
	{6, "a body byte now and then", "", nil, dribble(post+"Content-Length: 1000000\r\n\r\n", "y")},
	{22, "long poll, then gone", "", nil, lostPoll},
	{23, "dedup id used for another body", "", nil, otherBody},
	{29, "every route without credentials", "", nil, everyRoute},
}

// endlessChunks sends chunks beyond the body's limit until the server refuses the request.
func endlessChunks(s HTTP) error {
	conn, err := s.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(s.Patience)); err != nil {
		return err
	}
	go func() {
		if _, err := conn.Write([]byte(post + "Transfer-Encoding: chunked\r\n\r\n")); err != nil {
			return
		}
		chunk := []byte("10000\r\n" + strings.Repeat("x", 1<<16) + "\r\n")
		for sent := 0; sent < 2*s.MaxBody+1<<20; sent += 1 << 16 {
			if _, err := conn.Write(chunk); err != nil {
				return // the server has refused the request
			}
		}
	}()
	a, err := readAnswer(bufio.NewReader(conn))
	if err == nil && a.status != 413 {
		err = fmt.Errorf("answered with %v, want 413", a)
	}
	return err
}

// smuggle frames a request in two contradictory ways, and appends another request. Whichever
// framing the server uses, it must not answer the appended request.
func smuggle(framing string) func(HTTP) error {
	return func(s HTTP) error {
		conn, err := s.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(s.Patience)); err != nil {
			return err
		}
		in := "POST /v1/queues/hostile-nobody/messages HTTP/1.1\r\nHost: localhost\r\n" + framing + get("/healthz", "")
		if _, err := conn.Write([]byte(in)); err != nil {
			return err
		}
		br := bufio.NewReader(conn)
		a, err := readAnswer(br)
		if err != nil {
			return err
		}
		if a.status/100 != 4 {
			return fmt.Errorf("answered with %v, want it refused", a)
		}
		if a, err = readAnswer(br); err == nil && a.status != 0 {
			err = fmt.Errorf("the appended request was answered with %v", a)
		}
		return err
	}
}

// dribble keeps a request open by sending a single byte from time to time. The server must close
// the connection.
func dribble(begin, more string) func(HTTP) error {
	return func(s HTTP) error {
		conn, err := s.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(s.Patience)); err != nil {
			return err
		}
		done := make(chan struct{})
		defer close(done)
		go func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for in := begin; ; in = more {
				if _, err := conn.Write([]byte(in)); err != nil {
					return
				}
				select {
				case <-tick.C:
				case <-done:
					return
				}
			}
		}()
		a, err := readAnswer(bufio.NewReader(conn))
		if err == nil && a.status != 0 && a.status != 408 {
			err = fmt.Errorf("answered with %v, want 408 or the end", a)
		}
		return err
	}
}

// own creates a queue, calls f with the queue's path, and deletes the queue.
func (s HTTP) own(settings string, f func(path string) error) error {
	path := fmt.Sprintf("/v1/queues/hostile-%d", peers.Add(1))
	a, err := s.call("PUT", path, jsonType, settings)
	if err != nil || a.status != 201 {
		return fmt.Errorf("making a queue: %v, %w", a, err)
	}
	err = f(path)
	a, derr := s.call("DELETE", path, "", "")
	if derr == nil && a.status/100 != 2 {
		derr = fmt.Errorf("deleting the queue: %v", a)
	}
	return errors.Join(err, derr)
}

// lostPoll starts a long poll, and disconnects after the server counts it as a consumer. Later
// messages must not be leased to the lost client.
func lostPoll(s HTTP) error {
	return s.own(`{}`, func(path string) error {
		const polls = 10
		var conns []net.Conn
		for range polls {
			conn, err := s.Dial()
			if err != nil {
				return err
			}
			conns = append(conns, conn)
			if _, err := conn.Write([]byte(request("POST", path+"/receive", jsonType, `{"max":1,"wait":"20s","lease":"10m"}`))); err != nil {
				return err
			}
		}
		if err := s.consumers(path, polls); err != nil {
			return err
		}
		for _, conn := range conns {
			if err := conn.Close(); err != nil {
				return err
			}
		}
		if err := s.consumers(path, 0); err != nil {
			return err
		}
		if a, err := s.call("POST", path+"/messages", "", "x"); err != nil || a.status != 201 {
			return fmt.Errorf("publishing: %v, %v", a, err)
		}
		a, err := s.call("POST", path+"/receive", jsonType, `{"max":1,"wait":"10s"}`)
		if err == nil && (a.status != 200 || !strings.Contains(a.body, `"receipt"`)) {
			err = fmt.Errorf("the next client did not receive the message: %v", a)
		}
		return err
	})
}

// consumers waits until a queue has this many consumers.
func (s HTTP) consumers(path string, want int) error {
	deadline := time.Now().Add(s.Patience)
	for {
		a, err := s.call("GET", path, "", "")
		if err != nil {
			return err
		}
		if strings.Contains(a.body, fmt.Sprintf(`"consumers":%d,`, want)) || strings.Contains(a.body, fmt.Sprintf(`"consumers":%d}`, want)) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the queue must have %d consumers: %v", want, a)
		}
	}
}

// otherBody publishes two messages with one dedup id and different bodies. The second must not be
// stored, and its publisher must be told.
func otherBody(s HTTP) error {
	return s.own(`{"dedup":{"window":"1m"}}`, func(path string) error {
		for i, b := range []string{`"one"`, `"two"`} {
			a, err := s.call("POST", path+"/messages", ndjsonType, `{"body":`+b+`,"dedup_id":"same"}`)
			if err != nil || a.status != 201 || i == 1 != strings.Contains(a.body, `"duplicates":1`) {
				return fmt.Errorf("publish %d: %v, %v", i, a, err)
			}
		}
		a, err := s.call("GET", path+"/messages", "", "")
		if err == nil && (!strings.Contains(a.body, "one") || strings.Contains(a.body, "two")) {
			err = fmt.Errorf("the queue holds %v", a)
		}
		return err
	})
}

// everyRoute requests every documented path with every method, as a client from another machine
// without a login.
func everyRoute(s HTTP) error {
	a, err := s.call("GET", "/v1/openapi.json", "", "")
	if err != nil {
		return err
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || len(doc.Paths) < 10 {
		return fmt.Errorf("openapi.json names %d paths, %v", len(doc.Paths), err)
	}
	for pattern, methods := range doc.Paths {
		path := strings.NewReplacer("{vhost}", "%2F", "{v}", "%2F", "{", "", "}", "").Replace(pattern)
		for method := range methods {
			a, err := s.call(strings.ToUpper(method), path, "X-Forwarded-For: 192.0.2.1\r\n", "")
			if err != nil {
				return err
			}
			if public := path == "/healthz" || path == "/readyz"; public != (a.status == 200) || !public && a.status != 401 {
				return fmt.Errorf("%s %s was answered with %v", method, path, a)
			}
		}
	}
	return nil
}
