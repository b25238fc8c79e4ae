package sink

import (
	"net/url"
	"regexp"
	"strings"
)

// hidden stands for a password wherever settings are shown.
const hidden = "***"

// keyValue is one setting of an address in words, by libpq's rules.
var keyValue = regexp.MustCompile(`^\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|)(?:\s+|$)`)

// Redacted gives the settings with the passwords of the address as ***. Nothing else of a sink may
// be shown or logged.
func (s Spec) Redacted() Spec {
	if s.Kind == "postgres" {
		s.Address = redact(s.Address)
	}
	return s
}

// redact hides passwords in a PostgreSQL address of either form. Where it is not sure what is a
// password, it hides the whole address.
func redact(dsn string) string {
	scheme, rest, isURL := strings.Cut(dsn, "://")
	if !isURL || scheme != "postgres" && scheme != "postgresql" {
		return redactWords(dsn)
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 && strings.Contains(rest[i:], "@") {
		return hidden // the password may have begun before one of / ? #, in what looks like a port
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return hidden
	}
	user := ""
	if u.User != nil {
		user = url.User(u.User.Username()).String()
		if _, has := u.User.Password(); has {
			user += ":" + hidden
		}
		user += "@"
	}
	parts := strings.Split(u.RawQuery, "&")
	for i, p := range parts {
		key, _, _ := strings.Cut(p, "=")
		if k, err := url.QueryUnescape(key); err != nil || strings.HasSuffix(strings.ToLower(k), "password") {
			parts[i] = key + "=" + hidden
		}
	}
	out := u.Scheme + "://" + user + u.Host + u.EscapedPath()
	if u.RawQuery != "" {
		out += "?" + strings.Join(parts, "&")
	}
	return out
}

// redactWords hides the passwords of an address such as "host=h user=u password=p".
func redactWords(dsn string) string {
	var out []string
	for rest := dsn; strings.TrimSpace(rest) != ""; {
		m := keyValue.FindStringSubmatch(rest)
		if m == nil {
			return hidden
		}
		if strings.HasSuffix(strings.ToLower(m[1]), "password") {
			m[2] = hidden
		}
		out = append(out, m[1]+"="+m[2])
		rest = rest[len(m[0]):]
	}
	return strings.Join(out, " ")
}

// hasHidden tells whether an address has *** where a password should be.
func hasHidden(address string) bool { return strings.Contains(address, hidden) }
