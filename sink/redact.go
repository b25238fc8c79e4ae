package sink

import (
	"net/url"
	"regexp"
	"strings"
)

// mask replaces a password wherever settings are displayed.
const mask = "***"

// keyValue matches one setting of an address in key=value form, by libpq's rules.
var keyValue = regexp.MustCompile(`^\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|)(?:\s+|$)`)

// Redacted returns the settings with *** in place of the address's passwords. Display and log only
// redacted settings.
func (s Spec) Redacted() Spec {
	if s.Kind == "postgres" {
		s.Address = redact(s.Address)
	}
	return s
}

// redact hides passwords in a PostgreSQL address of either form. If it is not sure which part is a
// password, it hides the whole address.
func redact(dsn string) string {
	scheme, rest, isURL := strings.Cut(dsn, "://")
	if !isURL || scheme != "postgres" && scheme != "postgresql" {
		return redactWords(dsn)
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 && strings.Contains(rest[i:], "@") {
		return mask // the password may have begun before a / ? or #, in the part that looks like a port
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return mask
	}
	user := ""
	if u.User != nil {
		user = url.User(u.User.Username()).String()
		if _, has := u.User.Password(); has {
			user += ":" + mask
		}
		user += "@"
	}
	parts := strings.Split(u.RawQuery, "&")
	for i, p := range parts {
		key, _, _ := strings.Cut(p, "=")
		if k, err := url.QueryUnescape(key); err != nil || strings.HasSuffix(strings.ToLower(k), "password") {
			parts[i] = key + "=" + mask
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
			return mask
		}
		if strings.HasSuffix(strings.ToLower(m[1]), "password") {
			m[2] = mask
		}
		out = append(out, m[1]+"="+m[2])
		rest = rest[len(m[0]):]
	}
	return strings.Join(out, " ")
}

// hasHidden reports whether an address has *** where a password should be.
func hasHidden(address string) bool { return strings.Contains(address, mask) }
