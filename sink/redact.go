package sink

import (
	"net/url"
	"regexp"
	"strings"
)

// hidden stands for a password wherever settings are shown.
const hidden = "***"

var secretWords = regexp.MustCompile(`(?i)\b((?:ssl)?password)\s*=\s*('(?:[^'\\]|\\.)*'?|(?:[^\s\\]|\\.)*)`)

// Redacted gives the settings with the passwords of the address as ***. Nothing else of a sink may be shown or logged.
func (s Spec) Redacted() Spec {
	if s.Kind == "postgres" {
		s.Address = redact(s.Address)
	}
	return s
}

// redact hides passwords in a PostgreSQL address of either form. An address that cannot be read is hidden as a whole.
func redact(dsn string) string {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		if strings.Contains(dsn, "://") {
			return hidden
		}
		return secretWords.ReplaceAllString(dsn, "${1}="+hidden)
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

// hasHidden tells whether an address has *** where a password should be.
func hasHidden(address string) bool { return strings.Contains(address, hidden) }
