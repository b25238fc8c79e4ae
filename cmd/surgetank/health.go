package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// noteRefusal writes a line if the server refuses messages, for example because its disk is nearly
// full. If the server does not answer, noteRefusal writes nothing: the command has already reported
// its result.
func (r remote) noteRefusal(ctx context.Context, w io.Writer) {
	base, err := url.Parse(r.Server)
	if err != nil {
		return
	}
	base.User = nil
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base.String(), "/")+"/readyz", nil)
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	var state struct{ Publish, Reason string }
	if json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&state) == nil && state.Publish == "refused" {
		fmt.Fprintf(w, "surgetank: messages are refused: %s\n", printable(state.Reason))
	}
}
