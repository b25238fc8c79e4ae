package flow

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/server"
)

// examples returns the code blocks of one language in a section of docs/flow-control.md.
func examples(t *testing.T, section, language string) []string {
	t.Helper()
	rest := sectionOf(t, section)
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(rest, -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("section %q has no %s", section, language)
	}
	return blocks
}

// sectionOf returns the text of a section of docs/flow-control.md.
func sectionOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/flow-control.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n## "+name+"\n")
	if !ok {
		t.Fatalf("docs/flow-control.md has no section %q", name)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

// serve starts a server with the first YAML example of a section. It returns a client and the
// address of the AMQP door. edit, if not nil, changes the example before it is used.
func serve(t *testing.T, section string, edit func(string) string) (*client.Client, string) {
	t.Helper()
	text := examples(t, section, "yaml")[0]
	if edit != nil {
		text = edit(text)
	}
	file, err := config.Parse("example.yaml", []byte(text), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(t.Context(), server.Options{
		Config: config.Server{Data: filepath.Join(t.TempDir(), "data"), HTTP: "127.0.0.1:0", AMQP: "127.0.0.1:0"}, File: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	c, err := client.Dial("http://"+s.Addresses().HTTP, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, "amqp://guest:guest@" + s.Addresses().AMQP + "/"
}
