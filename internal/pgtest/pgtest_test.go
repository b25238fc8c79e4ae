package pgtest

import "testing"

func TestServerSurvivesKillAndStop(t *testing.T) {
	s := Start(t)
	dsn := s.Database(t)
	s.Exec(t, dsn, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	for _, end := range []func() error{s.Kill, s.Stop, s.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if _, err := Query(dsn, "SELECT 1"); err == nil {
			t.Fatal("a server that was ended answers")
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		if rows := s.Query(t, dsn, "SELECT n, null FROM t"); len(rows) != 1 || rows[0][0] != "1" || rows[0][1] != "<null>" {
			t.Fatalf("rows %v", rows)
		}
	}
}
