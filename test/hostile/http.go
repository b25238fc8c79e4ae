package hostile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// HTTP is a server that receives bad requests. It must treat a loopback caller without credentials
// as its administrator, like a server that listens on loopback alone. It must have the queue that
// Prepare creates. Its methods are safe for use by many goroutines.
type HTTP struct {
	Dial     func() (net.Conn, error)
	Patience time.Duration // limit for a required answer; longer than the server's own limits
	MaxBody  int           // most bytes of a request's body that the server accepts
}

// HTTPCase is one bad request.
type HTTPCase struct {
	Number  int // number in the list of 24; further cases have 25 and up
	Name    string
	request string
	want    []int // accepted statuses; 0: closed without an answer
	talk    func(s HTTP) error
}

func (c HTTPCase) String() string { return fmt.Sprintf("%02d %s", c.Number, c.Name) }

// Request returns the bytes to send. For a dialogue it is empty.
func (c HTTPCase) Request() []byte { return []byte(c.request) }

// LastHTTP is the highest number of the list.
const LastHTTP = 30

// HTTPCases returns every case, ordered by number.
func HTTPCases() []HTTPCase {
	all := slices.Concat(badRequests, httpTalks)
	slices.SortStableFunc(all, func(a, b HTTPCase) int { return a.Number - b.Number })
	return all
}

// answer is an answer to a request. Its status is 0 if the connection ended without an answer.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %.300s", a.status, a.body) }

// Prepare creates the queue that the cases misuse.
func (s HTTP) Prepare() error {
	a, err := s.call("PUT", "/v1/queues/hostile", "Content-Type: application/json\r\n", "{}")
	if err == nil && a.status/100 != 2 {
		err = fmt.Errorf("making the queue: %v", a)
	}
	return err
}

// Untouched checks that the refused requests stored nothing.
func (s HTTP) Untouched() error {
	a, err := s.call("GET", "/v1/queues/hostile/messages", "", "")
	if err != nil {
		return err
	}
	if a.status != 200 || !strings.Contains(a.body, `"messages":[]`) {
		return fmt.Errorf("the queue of the bad requests ought to be empty: %v", a)
	}
	return nil
}

// call sends one good request.
func (s HTTP) call(method, path, headers, body string) (answer, error) {
	conn, err := s.Dial()
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	return s.exchange(conn, []byte(request(method, path, headers, body)), false)
}

func request(method, path, headers, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", method, path, headers, len(body), body)
}

// exchange writes a request while it reads the answer, because a server can answer before it has
// read the whole request.
func (s HTTP) exchange(conn net.Conn, b []byte, slow bool) (answer, error) {
	if err := conn.SetDeadline(time.Now().Add(s.Patience)); err != nil {
		return answer{}, err
	}
	go func() {
		step := len(b)
		if slow {
			step = 1
		}
		for ; len(b) > 0; b = b[step:] {
			if _, err := conn.Write(b[:step]); err != nil {
				return // only the answer counts
			}
		}
	}()
	return readAnswer(bufio.NewReader(conn))
}

// readAnswer reads one whole answer, and checks the rules for all answers.
func readAnswer(br *bufio.Reader) (answer, error) {
	if _, err := br.Peek(1); err != nil {
		if errors.Is(err, io.EOF) || reset(err) {
			return answer{}, nil
		}
		return answer{}, fmt.Errorf("no answer came: %w", err)
	}
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		return answer{}, fmt.Errorf("the answer is not HTTP: %w", err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil && !reset(err) { // the answer to a request refused in the middle may be cut off
		return answer{}, fmt.Errorf("the answer's body: %w", err)
	}
	if err := res.Body.Close(); err != nil {
		return answer{}, err
	}
	a := answer{res.StatusCode, res.Header, string(bytes.TrimSpace(b))}
	for name := range res.Header {
		if name == "Set-Cookie" || strings.HasPrefix(name, "Access-Control-") || name == "Upgrade" {
			return a, fmt.Errorf("the answer %v has the header %s: %q", a, name, res.Header[name])
		}
	}
	if strings.Contains(res.Header.Get("Content-Type"), "html") {
		return a, fmt.Errorf("the answer %v is a page", a)
	}
	return a, nil
}

// Play sends the bad request once and checks the answer. If slow is true, it sends segments of one
// byte.
func (s HTTP) Play(c HTTPCase, slow bool) error {
	if c.talk != nil {
		return c.talk(s)
	}
	conn, err := s.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if tc, ok := conn.(*net.TCPConn); ok {
		if err := tc.SetNoDelay(true); err != nil {
			return err
		}
	}
	a, err := s.exchange(conn, c.Request(), slow)
	if err != nil {
		return err
	}
	if !slices.Contains(c.want, a.status) {
		return fmt.Errorf("answered with %v, want %v", a, c.want)
	}
	return nil
}

// Places returns the positions at which to cut a request; see Case.Places. The beginning that a
// request shares with an earlier case is left out.
func (c HTTPCase) Places(before []HTTPCase, all bool) []int {
	n, from := len(c.request), 0
	dense, spread := density(n)
	for _, b := range before {
		from = max(from, common(b.request, c.request)+1)
	}
	var at []int
	for i := from; i < n; i++ {
		if all || i <= from+dense || i >= n-dense/2 || i%spread == 0 {
			at = append(at, i)
		}
	}
	return at
}

// common returns the length of the longest common prefix of two texts.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// Cut sends the beginning of a request and then ends in one of the ways. The server must close the
// connection by itself; after Silence, within its time limits.
func (s HTTP) Cut(c HTTPCase, at int, e Ending) error {
	// Cuts work the same for every protocol.
	return AMQP{Dial: s.Dial, Patience: s.Patience}.Cut(c.Request(), at, e)
}

// Works checks that the server still serves.
func (s HTTP) Works() error {
	a, err := s.call("GET", "/v1/queues/hostile", "", "")
	if err == nil && a.status != 200 {
		err = fmt.Errorf("a good request was answered with %v", a)
	}
	return err
}
