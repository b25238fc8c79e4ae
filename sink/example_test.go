package sink_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sqlite"
)

// A manager stores sinks in the broker and runs them. This sink writes each order once into a table
// of a SQLite file.
func ExampleManager() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "surgetank-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "orders", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		log.Fatal(err)
	}

	m, err := sink.NewManager(ctx, b, map[string]sink.Factory{"sqlite": sqlite.New}, sink.Options{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(ctx)
	spec := fmt.Sprintf(`{"queue": "orders", "sqlite": {"path": %q, "table": "orders", "create_table": true, "columns": {"id": "$.id", "total": "$.total"}}}`,
		filepath.Join(dir, "shop.db"))
	if _, _, err := m.Put(ctx, "orders-to-db", []byte(spec)); err != nil {
		log.Fatal(err)
	}
	if _, err := surgetank.Send(ctx, b, "orders", surgetank.Message{Body: []byte(`{"id": 1, "total": 7}`)}); err != nil {
		log.Fatal(err)
	}
	for {
		info, err := m.Info(ctx, "orders-to-db")
		if err != nil {
			log.Fatal(err)
		}
		if info.Applied > 0 {
			fmt.Println("rows written:", info.Applied)
			return
		}
		runtime.Gosched()
	}
	// Output: rows written: 1
}
