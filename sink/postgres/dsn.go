package postgres

import (
	"errors"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank"
)

// own lists settings that may be missing in the address. pgconn then reads them, by libpq's rules,
// from the process's environment and the user's home directory. They are the server's own secrets
// and would be sent to the host in the address. Empty values turn them off.
var own = []string{"passfile", "sslcert", "sslkey", "sslpassword"}

// refusedKeys lists settings that name files with secrets of the server's user.
var refusedKeys = []string{"passfile", "service", "servicefile"}

// word matches one setting of an address in key=value form, such as host=h.
var word = regexp.MustCompile(`^\s*([^\s=]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|)(?:\s+|$)`)

// keysOf returns the names of the settings in an address. The error contains nothing of the
// address.
func keysOf(dsn string) (keys []string, err error) {
	unreadable := errors.New("the address cannot be read")
	if isURL(dsn) {
		_, rest, _ := strings.Cut(dsn, "://")
		if i := strings.IndexAny(rest, "/?#"); i >= 0 && strings.Contains(rest[i:], "@") {
			return nil, unreadable // a password with one of / ? # would be read as a port and a database name
		}
		_, query, _ := strings.Cut(dsn, "?")
		for pair := range strings.SplitSeq(query, "&") {
			key, _, _ := strings.Cut(pair, "=")
			if key, err = url.PathUnescape(key); err != nil {
				return nil, unreadable
			}
			keys = append(keys, key)
		}
		return keys, nil
	}
	for rest := dsn; strings.TrimSpace(rest) != ""; {
		m := word.FindStringSubmatch(rest)
		if m == nil {
			return nil, unreadable
		}
		keys = append(keys, m[1])
		rest = rest[len(m[0]):]
	}
	return keys, nil
}

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

// parseDSN reads an address without the secrets of this process: PGPASSWORD, ~/.pgpass, client
// certificates and service files. An *Error is safe to display; other errors may contain a part of
// the password.
func parseDSN(dsn string) (*pgconn.Config, error) {
	keys, err := keysOf(dsn)
	if err != nil {
		return nil, err
	}
	for _, k := range refusedKeys {
		if slices.Contains(keys, k) {
			return nil, surgetank.FieldErrorf("postgres.dsn", "postgres.dsn: %s names a file of the server's user, which a sink may not use; write the user and the password into the address", k)
		}
	}
	if os.Getenv("PGSERVICE") != "" {
		return nil, surgetank.FieldErrorf("postgres.dsn", "postgres.dsn: the environment of this process has PGSERVICE, which would change where the sink connects to; start it without")
	}
	config, err := pgconn.ParseConfig(without(dsn))
	if err != nil {
		return nil, err
	}
	// If the address has the same password as the environment, its author already knows the
	// password.
	if p := os.Getenv("PGPASSWORD"); p != "" && config.Password == p && !has(dsn, p) {
		config.Password = ""
	}
	return config, nil
}

// without returns the address with the settings in own turned off. If the address contains such a
// setting itself, the address's value applies, because the last value of a setting counts.
func without(dsn string) string {
	if !isURL(dsn) {
		return strings.Join(own, "='' ") + "='' " + dsn
	}
	off := strings.Join(own, "=&") + "="
	base, query, _ := strings.Cut(dsn, "?")
	if query == "" {
		return base + "?" + off
	}
	return base + "?" + off + "&" + query
}

// has reports whether an address contains a text, escaped or not.
func has(dsn, text string) bool {
	plain, err := url.PathUnescape(dsn)
	return strings.Contains(dsn, text) || err == nil && strings.Contains(plain, text)
}
