package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/sink"
)

func at(dsn string) sink.Spec {
	return sink.Spec{Kind: "postgres", Address: dsn, Table: sink.TableSpec{Table: "t"}}
}

// TestTheServersOwnSecrets: no connection uses a secret from the environment or the home directory
// of the server's user, whatever host the address names.
func TestTheServersOwnSecrets(t *testing.T) {
	home := t.TempDir()
	for name, text := range map[string]string{
		".pgpass":                    "*:*:*:*:own-secret\n",
		".pg_service.conf":           "[s]\nhost=service.example\npassword=own-secret\n",
		".postgresql/postgresql.crt": "x", ".postgresql/postgresql.key": "x", // reading them would be an error
	} {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("APPDATA", home)
	for name, value := range map[string]string{
		"PGPASSWORD": "own-secret", "PGPASSFILE": filepath.Join(home, ".pgpass"), "PGSSLCERT": filepath.Join(home, ".postgresql/postgresql.crt"),
		"PGSSLKEY": filepath.Join(home, ".postgresql/postgresql.key"), "PGSSLPASSWORD": "own-secret", "PGSERVICEFILE": filepath.Join(home, ".pg_service.conf"),
	} {
		t.Setenv(name, value)
	}
	for _, withEnv := range []bool{true, false} {
		if !withEnv { // without PGPASSWORD, pgconn would read ~/.pgpass next
			os.Unsetenv("PGPASSWORD")
			os.Unsetenv("PGPASSFILE")
		}
		for dsn, want := range map[string]string{
			"postgres://u@h/db": "", "postgres://u:@h/db": "", "postgres://u:theirs@h/db": "theirs", "postgres://h/db?user=u": "",
			"postgres://u@h/db?sslmode=require": "", "postgres://u@h/db?password=theirs": "theirs", "postgres://u:th%65irs@h": "theirs",
			"postgres://u@h1:1,h2:2/db": "", "host=h user=u": "", "host=h user=u password=theirs": "theirs", "host=h user=u password=''": "",
			"host=h user=u options='-c a=password=1'": "", "user=u host=h password='it''s'": "-", "postgresql://u@h/?application_name=passfile%3Dx": "",
		} {
			target, err := New(at(dsn))
			if want == "-" {
				if err == nil {
					t.Errorf("%s: the address is accepted", dsn)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", dsn, err)
				continue
			}
			c := target.(*Target).config
			if c.Password != want {
				t.Errorf("%s (PGPASSWORD %v): the password is %q, want %q", dsn, withEnv, c.Password, want)
			}
			if c.TLSConfig != nil && len(c.TLSConfig.Certificates) > 0 {
				t.Errorf("%s: has the server's certificate", dsn)
			}
		}
		for _, dsn := range []string{
			"postgres://h/db?service=s", "postgres://h/db?passfile=/home/other/.pgpass", "postgres://h/db?pass%66ile=/home/other/.pgpass", "service=s", "host=h servicefile=/x service = s",
			"host=h passfile='/home/other/.pgpass'",
		} {
			if _, err := New(at(dsn)); err == nil || !strings.Contains(err.Error(), "file of the server's user") {
				t.Errorf("%s: %v", dsn, err)
			}
		}
	}
	t.Setenv("PGSERVICE", "s")
	if _, err := New(at("postgres://u@h/db")); err == nil || !strings.Contains(err.Error(), "PGSERVICE") {
		t.Errorf("with PGSERVICE: %v", err)
	}
}

// TestErrorsHoldNoPassword: errors about an unreadable or misunderstood address show no part of its
// password.
func TestErrorsHoldNoPassword(t *testing.T) {
	const password = "SeCrEt"
	for _, form := range []string{
		"postgres://u:%@h:port/db", "postgres://u:%@h/db?sslmode=nonsense", "postgres://u:12/%@127.0.0.1:1/db", "postgres://u:12?%@127.0.0.1:1/db", "postgres://u:12#%@127.0.0.1:1/db",
		"postgres://u:%%%@h/db", "postgres://u:a:%@h:1:2/db", "postgres://u:[%@h/db", "host=h password=two %", "host=h password='% user=u", "password %", "host=127.0.0.1 port=1 password=% x",
		"postgres://u:%\x00@h/db", "postgres://u:%@h:99999/db", "host=h port=99999 password=%", "mysql://u:%@h/db", "%",
	} {
		for i := 0; i < len(form); i++ {
			if form[i] != '%' {
				continue
			}
			dsn := form[:i] + password + form[i+1:]
			target, err := New(at(dsn))
			if err == nil {
				err = target.Check(t.Context())
			}
			if err == nil {
				t.Errorf("%q is accepted", dsn)
			} else if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(password)) {
				t.Errorf("%q: the error shows the password: %v", dsn, err)
			}
			if shown := at(dsn).Redacted().Address; strings.Contains(shown, password) {
				t.Errorf("%q is shown as %q", dsn, shown)
			}
		}
	}
}
