package server

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
)

// TestMetricsAreDocumented: docs/metrics.md lists exactly the metrics that /metrics prints, with
// their types and help texts.
func TestMetricsAreDocumented(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	o := local(dir)
	o.AMQP = "127.0.0.1:0"
	s := start(t, Options{Config: o})
	base := "http://" + s.Addresses().HTTP
	for _, c := range [][3]string{{"PUT", "/v1/queues/q", "{}"}, {"PUT", "/v1/sinks/s", `{"queue":"q","sqlite":{"path":"x.db","table":"t","columns":{"id":"$.id"},"create_table":true}}`}} {
		if code, body := request(t, c[0], base+c[1], c[2]); code != 201 {
			t.Fatalf("%s %s: %d %s", c[0], c[1], code, body)
		}
	}
	request(t, "PUT", base+"/v1/queues/narrow", `{"max_messages":1}`) // its second message is refused, and counted by limit
	for range 2 {
		request(t, "POST", base+"/v1/queues/narrow/messages", "x")
	}
	_, text := request(t, "GET", base+"/metrics", "")
	printed, help := map[string]string{}, map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (surgetank_\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		printed[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^# HELP (surgetank_\S+) (.*)$`).FindAllStringSubmatch(text, -1) {
		help[m[1]] = m[2]
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(surgetank_\\w+)(?:\\{[^}`]*\\})?` \\| (\\w+) \\| (.*) \\|$").FindAllStringSubmatch(string(page), -1) {
		if documented[m[1]] != "" {
			t.Errorf("docs/metrics.md has %s twice", m[1])
		}
		documented[m[1]] = m[2]
		if m[3] != help[m[1]] {
			t.Errorf("docs/metrics.md says of %s %q; /metrics says %q", m[1], m[3], help[m[1]])
		}
	}
	if len(printed) < 50 {
		t.Fatalf("/metrics prints %d metrics:\n%s", len(printed), text)
	}
	for _, name := range slices.Sorted(maps.Keys(printed)) {
		if documented[name] != printed[name] {
			t.Errorf("docs/metrics.md lacks %s, a %s (it has %q)", name, printed[name], documented[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if printed[name] == "" {
			t.Errorf("docs/metrics.md has %s, which /metrics does not print", name)
		}
	}
}

// TestLimitsAreCounted: refusals by limits are counted on every door.
func TestLimitsAreCounted(t *testing.T) {
	o := local(filepath.Join(t.TempDir(), "data"))
	o.MaxMessage = 1 << 10
	s := start(t, Options{Config: o})
	base := "http://" + s.Addresses().HTTP
	count := func(limit string) string {
		_, text := request(t, "GET", base+"/metrics", "")
		_, after, _ := strings.Cut(text, `surgetank_limit_refused_total{limit="`+limit+`"} `)
		n, _, _ := strings.Cut(after, "\n")
		return n
	}
	for _, c := range [][3]string{{"PUT", "/v1/queues/q", "{}"}, {"PUT", "/v1/vhosts/small", ""}, {"PUT", "/v1/vhosts/small/limits", `{"max_queues":0}`},
		{"PUT", "/v1/users/u", `{"password":"a long password","tags":["administrator"]}`}, {"PUT", "/v1/users/u/limits", `{"max_consumers":0}`}, {"PUT", "/v1/vhosts/%2F/permissions/u", `{"read":".*","write":".*","configure":".*"}`},
		{"PUT", "/v1/vhosts/small/permissions/u", `{"read":".*","write":".*","configure":".*"}`}} {
		if c[1] == "/v1/users/u/limits" { // the first user ends the access without a login
			base = strings.Replace(base, "//", "//u:a%20long%20password@", 1)
		}
		if code, body := request(t, c[0], base+c[1], c[2]); code >= 300 {
			t.Fatalf("%s %s: %d %s", c[0], c[1], code, body)
		}
	}
	for _, c := range []struct{ limit, method, url, body, named string }{
		{"message_size", "POST", base + "/v1/queues/q/messages", strings.Repeat("x", 2<<10), ""},
		{"vhost_queues", "PUT", base + "/v1/vhosts/small/queues/q", "{}", surgetank.LimitVhostQueues},
		{"user_consumers", "POST", base + "/v1/queues/q/subscribe", "{}", surgetank.LimitUserConsumers},
	} {
		if n := count(c.limit); n != "0" {
			t.Errorf("%s: %q before anything was refused", c.limit, n)
		}
		if code, body := request(t, c.method, c.url, c.body); code < 400 || c.named != "" && !strings.Contains(body, `"limit":"`+c.named+`"`) {
			t.Errorf("%s: %d %s", c.limit, code, body)
		}
		if n := count(c.limit); n != "1" {
			t.Errorf("%s: counted %q, want 1", c.limit, n)
		}
	}
}
