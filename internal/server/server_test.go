package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a server for a test and stops it at its end.
func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error("stop:", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func local(dir string) config.Server {
	return config.Server{Data: dir, HTTP: "127.0.0.1:0", AMQP: config.Off, Shards: shardstest.N}
}

func request(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func TestServesStopsAndFindsEverythingAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var log bytes.Buffer
	s, err := Start(t.Context(), Options{Config: local(dir), Logger: slog.New(slog.NewTextHandler(&log, nil)), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + s.Addresses().HTTP
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := request(t, "GET", base+path, ""); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, body := request(t, "PUT", base+"/v1/queues/orders", "{}"); code != http.StatusCreated {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := request(t, "POST", base+"/v1/queues/orders/messages", "hello"); code != http.StatusCreated {
		t.Fatalf("%d %s", code, body)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory has mode %v, others could read it (%v)", info.Mode(), err)
	}
	if !s.OnlyGuest() || s.Err() != nil {
		t.Errorf("only guest %v, error %v", s.OnlyGuest(), s.Err())
	}
	stop(t, s)

	again := start(t, Options{Config: local(dir)})
	code, body := request(t, "GET", "http://"+again.Addresses().HTTP+"/v1/queues/orders", "")
	if code != http.StatusOK || !strings.Contains(body, `"ready":1`) {
		t.Errorf("after a restart: %d %s", code, body)
	}
}

// TestStopDoesNotWaitForLongPolls: consumers usually wait for messages, so a stop must not wait for
// them.
func TestStopDoesNotWaitForLongPolls(t *testing.T) {
	s, err := Start(t.Context(), Options{Config: local(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + s.Addresses().HTTP
	request(t, "PUT", base+"/v1/queues/q", "{}")
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		resp, err := http.Post(base+"/v1/queues/q/receive", "application/json", strings.NewReader(`{"wait":"60s"}`))
		if err == nil {
			resp.Body.Close()
		}
	}()
	for { // the poll has arrived when it counts as a consumer, or its request as running
		if _, body := request(t, "GET", base+"/v1/queues/q", ""); strings.Contains(body, `"consumers":1`) {
			break
		}
		select {
		case <-polled:
			t.Fatal("the poll ended before the stop")
		default:
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
	if ctx.Err() != nil {
		t.Error("the stop waited for the poll")
	}
	<-polled
}

func TestRefusesToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := t.TempDir()
	start(t, Options{Config: local(busy)})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config config.Server
		says   string
	}{
		"exposed with guest only":  {config.Server{Data: t.TempDir(), HTTP: "0.0.0.0:0", AMQP: config.Off}, "guest is the only user"},
		"address in use":           {config.Server{Data: t.TempDir(), HTTP: taken.Addr().String(), AMQP: config.Off}, "cannot listen on"},
		"directory in use":         {local(busy), "in use by process"},
		"directory is a file":      {local(file), "data directory"},
		"certificate is not there": {config.Server{Data: t.TempDir(), HTTP: "127.0.0.1:0", AMQP: config.Off, TLSCert: "none", TLSKey: "none"}, "TLS certificate"},
		"nothing to listen on":     {config.Server{Data: t.TempDir(), HTTP: config.Off, AMQP: config.Off}, "both off"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Start(t.Context(), Options{Config: c.config})
			if err == nil {
				stop(t, s)
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %q in it", err, c.says)
			}
		})
	}
}

func TestDeclaresTheFile(t *testing.T) {
	file, err := config.Parse("f.yaml", []byte("queues: {a: {ttl: 1h}, b: {paused: true}}"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, err := Start(t.Context(), Options{Config: local(dir), File: file})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.broker.PauseQueue(t.Context(), "a", 0); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	s = start(t, Options{Config: local(dir), File: file})
	for _, name := range []string{"a", "b"} {
		q, err := s.broker.Queue(t.Context(), name)
		if err != nil || !q.Config.Paused {
			t.Errorf("%s: %+v %v; an operator's pause must survive a start", name, q.Config, err)
		}
	}
}

// TestStartingAnswersHealthOnly: while the log is read, a health check shows that the process is
// alive and not ready.
func TestStartingAnswersHealthOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{log: slog.New(slog.DiscardHandler), listeners: listeners{http: l}, quit: make(chan struct{})}
	s.serveHTTP()
	base := "http://" + l.Addr().String()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/v1/queues": 503} {
		if code, body := request(t, "GET", base+path, ""); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
	stop(t, s)
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := certificate(t, dir)
	c := local(filepath.Join(dir, "data"))
	c.TLSCert, c.TLSKey = cert, key
	s := start(t, Options{Config: c})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + s.Addresses().HTTP + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !s.Addresses().TLS {
		t.Errorf("%s, %+v", resp.Status, s.Addresses())
	}
}

// TestAMQP: both AMQP doors answer the protocol header with connection.start. HTTP answers the
// requests that RabbitMQ's clients send there.
func TestAMQP(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := certificate(t, dir)
	c := local(filepath.Join(dir, "data"))
	c.AMQP, c.AMQPS, c.TLSCert, c.TLSKey = "127.0.0.1:0", "127.0.0.1:0", cert, key
	s := start(t, Options{Config: c})
	plain, err := net.Dial("tcp", s.Addresses().AMQP)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	secret, err := tls.Dial("tcp", s.Addresses().AMQPS, &tls.Config{RootCAs: pool, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	for name, conn := range map[string]net.Conn{"amqp": plain, "amqps": secret} {
		if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, 11) // method frame on channel 0, class 10, method 10
		if _, err := io.ReadFull(conn, frame); err != nil || frame[0] != 1 || !bytes.Equal(frame[7:], []byte{0, 10, 0, 10}) {
			t.Errorf("%s answered % x, %v", name, frame, err)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.Addresses().HTTP+"/api/vhosts", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("guest", "guest")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error("/api/vhosts:", resp.Status)
	}
}

func certificate(t *testing.T, dir string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER), pool
}

func TestExposure(t *testing.T) {
	loopback, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer loopback.Close()
	everywhere, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	guest, admin := auth.UserInfo{Name: "guest"}, auth.UserInfo{Name: "admin"}
	for _, c := range []struct {
		users     []auth.UserInfo
		listeners []net.Listener
		refused   bool
	}{
		{[]auth.UserInfo{guest}, []net.Listener{loopback}, false},
		{[]auth.UserInfo{guest}, []net.Listener{loopback, everywhere}, true},
		{nil, []net.Listener{everywhere}, true},
		{[]auth.UserInfo{guest, admin}, []net.Listener{everywhere}, false},
	} {
		if err := checkExposure(c.users, c.listeners); (surgetank.CodeOf(err) == surgetank.CodeDenied) != c.refused {
			t.Errorf("%v on %d listeners: %v", c.users, len(c.listeners), err)
		}
	}
}

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 1 << 20: 800, 48 << 20: 100, 96 << 20: 40, 1 << 30: 20, 32 << 20: 140} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d MiB live: GOGC %d, want %d", live>>20, got, want)
		}
	}
}
