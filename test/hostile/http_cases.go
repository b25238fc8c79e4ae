package hostile

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	jsonType   = "Content-Type: application/json\r\n"
	ndjsonType = "Content-Type: application/x-ndjson\r\n"
	queuePath  = "/v1/queues/hostile"
)

// post is the beginning of a publish request whose framing is the offence.
const post = "POST /v1/queues/hostile/messages HTTP/1.1\r\nHost: localhost\r\n"

func get(path, headers string) string { return request("GET", path, headers, "") }

// settings, receive and line return requests with a bad JSON text.
func settings(text string) string { return request("PUT", queuePath, jsonType, text) }

func receive(text string) string { return request("POST", queuePath+"/receive", jsonType, text) }

func line(text string) string { return request("POST", queuePath+"/messages", ndjsonType, text) }

func basicAuth(s string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(s)) + "\r\n"
}

// bomb returns 16 MiB of zeros, compressed to a few KiB.
func bomb() string {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(make([]byte, 16<<20))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(err) // writes to a buffer never fail
	}
	return b.String()
}

func manyHeaders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: y\r\n", i)
	}
	return b.String()
}

var (
	refused    = []int{400}
	notAllowed = []int{405}
	forbidden  = []int{403}
	nobody     = []int{401}
	misdirect  = []int{421}
	tooMuch    = []int{413}
)

// badRequests are hostile inputs, each of a single request.
var badRequests = []HTTPCase{
	{1, "declared body above the limit", post + "Content-Length: 5000000000\r\n\r\n", tooMuch, nil},
	{1, "declared body above all numbers", post + "Content-Length: 99999999999999999999\r\n\r\n", refused, nil},
	{1, "settings above the limit", request("PUT", queuePath, jsonType, strings.Repeat(" ", 4<<20+1)), tooMuch, nil},
	{2, "bad chunk size", post + "Transfer-Encoding: chunked\r\n\r\nZZ\r\nx\r\n", refused, nil},
	{2, "huge chunk size", post + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx\r\n", refused, nil},
	{2, "negative chunk size", post + "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n", refused, nil},
	{2, "chunk without its end", post + "Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n", refused, nil},
	{2, "chunk extensions without end", post + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("e", 1<<16) + "\r\nx\r\n0\r\n\r\n", refused, nil},
	{2, "unknown transfer encoding", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", []int{501}, nil},
	{2, "transfer encoding twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400, 501}, nil},
	{4, "two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", refused, nil},
	{4, "two lengths in one", post + "Content-Length: 1, 2\r\n\r\nxx", refused, nil},
	{4, "negative length", post + "Content-Length: -1\r\n\r\n", refused, nil},
	{4, "length with a sign", post + "Content-Length: +1\r\n\r\nx", refused, nil},
	{5, "header that never ends", "POST /v1/queues/hostile/messages HTTP/1.1\r\nHost: loc", []int{0, 408}, nil},
	{5, "nothing at all", "", []int{0, 408}, nil},
	{6, "body that never comes", post + "Content-Length: 100\r\n\r\nx", []int{408}, nil},
	{6, "chunks that never come", post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", []int{408}, nil},
	{7, "header of 1 MiB", get("/healthz", "X: "+strings.Repeat("y", 1<<20)+"\r\n"), []int{431}, nil},
	{7, "10,000 headers", get("/healthz", manyHeaders(10_000)), []int{431}, nil},
	{7, "request line of 1 MiB", get("/"+strings.Repeat("y", 1<<20), ""), []int{431}, nil},
	{7, "line break inside a header", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", refused, nil},
	{7, "NUL inside a header", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", refused, nil},
	{7, "blank before a colon", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX : a\r\n\r\n", refused, nil},
	{8, "settings as text", request("PUT", queuePath, "Content-Type: text/plain\r\n", "{}"), []int{415}, nil},
	{8, "settings as a form", request("PUT", queuePath, "Content-Type: application/x-www-form-urlencoded\r\n", "{}"), []int{415}, nil},
	{8, "settings without a type, which are taken for JSON", request("PUT", queuePath, "", "{"), refused, nil},
	{8, "a type that is none", request("POST", queuePath+"/messages", "Content-Type: ;;;\r\n", "x"), []int{400, 415}, nil},
	{9, "gzip bomb", request("POST", queuePath+"/messages", "Content-Encoding: gzip\r\n", bomb()), []int{415}, nil},
	{9, "gzip bomb as settings", request("PUT", queuePath, jsonType+"Content-Encoding: gzip\r\n", bomb()), []int{415}, nil},
	{9, "unknown encoding", request("POST", queuePath+"/messages", "Content-Encoding: br, gzip\r\n", "x"), []int{415}, nil},
	{10, "invalid JSON", settings(`{"ttl":`), refused, nil},
	{10, "JSON of another kind", settings(`[]`), refused, nil},
	{10, "a member twice", settings(`{"ttl":"1s","ttl":"2s"}`), refused, nil},
	{10, "a member twice in a message", line(`{"body":1,"body":2}`), refused, nil},
	{10, "a member twice, once in escapes", line(`{"body":1,"b\u006fdy":2}`), refused, nil},
	{10, "trailing data", settings(`{} {}`), refused, nil},
	{10, "trailing data in a line", line(`{"body":1} {"body":2}`), refused, nil},
	{10, "100,000 deep", settings(strings.Repeat(`{"a":`, 100_000)), refused, nil},
	{10, "a body 100,000 deep", line(`{"body":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`), refused, nil},
	{10, "NaN", receive(`{"max":NaN}`), refused, nil},
	{10, "Infinity", line(`{"body":1,"priority":Infinity}`), refused, nil},
	{10, "1e400", receive(`{"max":1e400}`), refused, nil},
	{10, "1e400 as a rate", settings(`{"level":{"rate":1e400}}`), refused, nil},
	{10, "a comment", settings(`{/* x */}`), refused, nil},
	{10, "half a line", line("{\"body\":1}\n{\"body\":"), refused, nil},
	{11, "unknown setting", settings(`{"nonsense":1}`), refused, nil},
	{11, "unknown setting inside", settings(`{"group":{"nonsense":1}}`), refused, nil},
	{11, "unknown member of a message", line(`{"body":1,"nonsense":2}`), refused, nil},
	{11, "unknown member of a receive", receive(`{"nonsense":2}`), refused, nil},
	{11, "unknown parameter", get(queuePath+"/messages?nonsense=1", ""), refused, nil},
	{11, "member of another case", line(`{"Body":1}`), refused, nil},
	{12, "bytes that are no UTF-8", line("{\"body\":1,\"group\":\"\xff\"}"), refused, nil},
	{12, "bytes that are no UTF-8 in the body", line("{\"body\":\"\xc3\x28\"}"), refused, nil},
	{12, "overlong UTF-8", line("{\"body\":1,\"group\":\"\xc0\x80\"}"), refused, nil},
	{12, "lone surrogate", line(`{"body":1,"group":"\ud800"}`), refused, nil},
	{12, "surrogates the wrong way round", line(`{"body":1,"group":"\udc00\ud800"}`), refused, nil},
	{12, "NUL", line(`{"body":1,"group":"a\u0000b"}`), refused, nil},
	{12, "NUL as it is", line("{\"body\":1,\"group\":\"a\x00b\"}"), refused, nil},
	{12, "byte order mark", line("\xef\xbb\xbf{\"body\":1}"), refused, nil},
	{13, "base64 that is none", line(`{"body_base64":"***"}`), refused, nil},
	{13, "base64 cut short", line(`{"body_base64":"AAA"}`), refused, nil},
	{13, "base64 and body", line(`{"body_base64":"AAAA","body":1}`), refused, nil},
	{13, "base64 of a number", line(`{"body_base64":7}`), refused, nil},
	{14, "slash in a name", get("/v1/queues/a%2fb", ""), []int{404}, nil},
	{14, "dots", get("/v1/queues/../users", ""), []int{400, 404}, nil},
	{14, "dots in escapes", get("/v1/queues/%2e%2e%2fusers", ""), []int{400, 404}, nil},
	{14, "NUL in a name", request("PUT", "/v1/queues/%00", jsonType, "{}"), refused, nil},
	{14, "line break in a name", request("PUT", "/v1/queues/a%0d%0ab", jsonType, "{}"), refused, nil},
	{14, "no UTF-8 in a name", request("PUT", "/v1/queues/%ff%fe", jsonType, "{}"), refused, nil},
	{14, "empty segments", get("//v1//queues", ""), []int{400, 404}, nil},
	{14, "name of 8 KiB", request("PUT", "/v1/queues/"+strings.Repeat("a", 8192), jsonType, "{}"), refused, nil},
	{14, "bad percent", get("/v1/queues/%zz", ""), refused, nil},
	{14, "the engine's own name for a queue", request("PUT", "/v1/queues/a%1fb", jsonType, "{}"), refused, nil},
	{15, "TRACE", request("TRACE", queuePath, "", ""), notAllowed, nil},
	{15, "CONNECT", "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{400, 404, 405, 421}, nil},
	{15, "override of the method", request("POST", queuePath, "X-HTTP-Method-Override: DELETE\r\n", ""), notAllowed, nil},
	{15, "another override", request("POST", queuePath, "X-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n", ""), notAllowed, nil},
	{15, "a method that is none", "G\x00T / HTTP/1.1\r\nHost: localhost\r\n\r\n", refused, nil},
	{15, "override of the path", request("GET", "/v1/nothing", "X-Original-URL: /v1/users\r\nX-Rewrite-URL: /v1/users\r\n", ""), []int{404}, nil},
	{16, "another host", "GET /v1/queues HTTP/1.1\r\nHost: evil.example\r\n\r\n", misdirect, nil},
	{16, "a host that looks near", "GET /v1/queues HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", misdirect, nil},
	{16, "absolute form of another host", "GET http://evil.example/v1/queues HTTP/1.1\r\nHost: localhost\r\n\r\n", misdirect, nil},
	{16, "no host", "GET /v1/queues HTTP/1.1\r\n\r\n", refused, nil},
	{16, "two hosts", "GET /v1/queues HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", refused, nil},
	{16, "host in another header", "GET /v1/queues HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\n\r\n", misdirect, nil},
	{17, "another site's form", request("POST", queuePath+"/messages", "Content-Type: text/plain\r\nSec-Fetch-Site: cross-site\r\nOrigin: http://evil.example\r\n", "x"), forbidden, nil},
	{17, "another site's form, old browser", request("POST", queuePath+"/messages", "Content-Type: text/plain\r\nOrigin: http://evil.example\r\n", "x"), forbidden, nil},
	{17, "a sibling site", request("POST", queuePath+"/purge", "Sec-Fetch-Site: same-site\r\n", ""), forbidden, nil},
	{17, "another port of this host", request("DELETE", queuePath, "Origin: http://localhost:9999\r\n", ""), forbidden, nil},
	{18, "Origin null", request("POST", queuePath+"/messages", "Origin: null\r\n", "x"), forbidden, nil},
	{18, "preflight", request("OPTIONS", queuePath+"/messages", "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n", ""), []int{403, 405}, nil},
	{19, "a session nobody gave", get("/v1/users", "Cookie: session=forged; m=YWRtaW46YWRtaW4=\r\nX-Forwarded-For: 192.0.2.1\r\n"), nobody, nil},
	{20, "Basic without a colon", get("/v1/whoami", basicAuth("guest")), nobody, nil},
	{20, "Basic without a password", get("/v1/whoami", basicAuth("guest:")), nobody, nil},
	{20, "Basic without a user", get("/v1/whoami", basicAuth(":x")), nobody, nil},
	{20, "Basic that is no base64", get("/v1/whoami", "Authorization: Basic !!!\r\n"), nobody, nil},
	{20, "Basic, empty", get("/v1/whoami", "Authorization:\r\n"), nobody, nil},
	{20, "two logins", get("/v1/whoami", basicAuth("guest:guest")+basicAuth("x:y")), nobody, nil},
	{20, "Bearer", get("/v1/whoami", "Authorization: Bearer x\r\n"), nobody, nil},
	{20, "password of 40 KiB", get("/v1/whoami", basicAuth("guest:"+strings.Repeat("x", 40<<10))), nobody, nil},
	{20, "password of 1 MiB", get("/v1/whoami", basicAuth("guest:"+strings.Repeat("x", 1<<20))), []int{431}, nil},
	{21, "negative max", receive(`{"max":-1}`), refused, nil},
	{21, "max of zero", receive(`{"max":0}`), refused, nil},
	{21, "huge max", receive(`{"max":9223372036854775808}`), refused, nil},
	{21, "max with a fraction", receive(`{"max":1.5}`), refused, nil},
	{21, "max as text", receive(`{"max":"1"}`), refused, nil},
	{21, "wait without a unit", receive(`{"wait":20}`), refused, nil},
	{21, "negative wait", receive(`{"wait":"-1s"}`), refused, nil},
	{21, "wait of ages", receive(`{"wait":"9999999h"}`), refused, nil},
	{21, "negative TTL", line(`{"body":1,"ttl":"-1s"}`), refused, nil},
	{21, "negative delay", line(`{"body":1,"delay":"-1s"}`), refused, nil},
	{21, "delay of ages", line(`{"body":1,"delay":"99999999999h"}`), refused, nil},
	{21, "priority 256", line(`{"body":1,"priority":256}`), refused, nil},
	{21, "priority with a fraction", line(`{"body":1,"priority":1.5}`), refused, nil},
	{21, "negative max_in_flight", settings(`{"group":{"max_in_flight":-1}}`), refused, nil},
	{21, "negative size", settings(`{"max_bytes":"-1GiB"}`), refused, nil},
	{21, "size beyond all", settings(`{"max_bytes":"99999999999999GiB"}`), refused, nil},
	{21, "negative peek", get(queuePath+"/messages?max=-1", ""), refused, nil},
	{21, "TTL in a header", request("POST", queuePath+"/messages", "Surgetank-TTL: soon\r\n", "x"), refused, nil},
	{21, "credit beyond all", request("POST", queuePath+"/subscribe", jsonType, `{"credit":1e9}`), refused, nil},
	{24, "HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", []int{400, 421, 505}, nil},
	{24, "HTTP/3 and other versions", "GET /healthz HTTP/3.0\r\nHost: localhost\r\n\r\n", []int{400, 505}, nil},
	{24, "not HTTP", "AMQP\x00\x00\x09\x01\r\n\r\n", refused, nil},
	{25, "somebody who forwards", get("/v1/whoami", "X-Forwarded-For: 127.0.0.1\r\n"), nobody, nil},
	{25, "somebody who forwards for guest", get("/v1/whoami", "Forwarded: for=127.0.0.1\r\n"+basicAuth("guest:guest")), nobody, nil},
	{25, "PROXY protocol, which nobody asked for", "PROXY TCP4 127.0.0.1 127.0.0.1 1 8080\r\n" + get("/v1/whoami", ""), refused, nil},
	{26, "WebSocket without an origin", get("/v1/nothing", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), []int{404}, nil},
	{26, "upgrade to HTTP/2", get("/v1/nothing", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), []int{404}, nil},
	{27, "response splitting by a name", get("/v1/queues/x%0d%0aSet-Cookie:%20a=b", ""), []int{400, 404}, nil},
	{27, "response splitting by a parameter", get(queuePath+"/messages?x%0d%0aSet-Cookie:%20a=b=1", ""), refused, nil},
	{27, "response splitting by a setting", settings(`{"x\r\nSet-Cookie: a=b":1}`), refused, nil},
	{28, "a pattern as a parameter", get("/v1/queues?name="+strings.Repeat("(a%2B)%2B", 1000)+"$", ""), refused, nil},
	{30, "receipt of nothing", request("POST", queuePath+"/ack", jsonType, `{"receipts":["no receipt"]}`), refused, nil},
	{30, "receipts that are none", request("POST", queuePath+"/ack", jsonType, `{"receipts":[null]}`), refused, nil},
	{30, "receipts as text", request("POST", queuePath+"/ack", jsonType, `{"receipts":"all"}`), refused, nil},
	{30, "a format nobody knows", request("POST", queuePath+"/messages?raw=pages", "Content-Type: text/plain\r\n", "x"), refused, nil},
	{30, "a queue that is not there", request("POST", "/v1/queues/hostile-nobody/messages", ndjsonType, `{"body":1}`), []int{404}, nil},
	{30, "a path that is not there", request("DELETE", "/v1/nothing", "", ""), []int{404}, nil},
}
