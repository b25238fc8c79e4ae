package config

import (
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

// AnyPath, as SQLiteDir, allows SQLite sinks to use files anywhere.
const AnyPath = "any"

// Off, as an address, means that the server does not open the door.
const Off = "off"

// Defaults of a server without settings.
const (
	DefaultData = "surgetank-data"
	DefaultHTTP = "127.0.0.1:8080"
	DefaultAMQP = "127.0.0.1:5672"
)

// Limits of the scrub's settings. A shorter time would overload the disk, and a longer one would be
// useless.
const (
	minScrubEvery = time.Second
	maxScrubEvery = 366 * 24 * time.Hour
	minScrubRate  = 64 << 10
)

// Limits of the disk's settings.
const (
	minSegment = 1 << 20
	maxSegment = 1 << 30
	minWaste   = 1 << 20
)

// maxShards is the largest number of shards.
const maxShards = 64

// Server is the server section: settings that cannot change while the server runs. Empty fields
// mean the default. Flags override the file.
type Server struct {
	Data  string // directory
	HTTP  string // address, or Off
	AMQP  string // address, or Off
	AMQPS string // address of AMQP over TLS; empty: none

	// TrustedProxies are HTTP proxies whose X-Forwarded-For or Forwarded header is trusted.
	TrustedProxies []netip.Prefix

	// SQLiteDir is the only directory for the files of SQLite sinks as soon as the server has
	// users. Empty means "sqlite" in the data directory. AnyPath means that files may be anywhere.
	SQLiteDir string

	TLSCert, TLSKey string // PEM files; if set, HTTP is HTTPS, and AMQPS may be set

	// Shards is the number of shards; 0: 1. ShardDirs has their directories, with an empty text for
	// the default one; nil: all are the defaults.
	Shards    int
	ShardDirs []string

	MaxMessage int64 // the most bytes of a body

	SegmentBytes int64 // size of a file of the log; 0: the default
	WasteBytes   int64 // the most bytes of the log written between snapshots, and the most dead bytes; 0: the default

	ReopenFor time.Duration // how long the server tries to open its log again after a failure; 0: for ever; negative: not at all

	ScrubEvery time.Duration // time between the starts of two scrubs; negative: never
	ScrubRate  int64         // the most bytes that a scrub reads in a second

	LogLevel  slog.Level
	LogFormat string // text or json
}

// WithDefaults returns s with defaults for every empty field.
func (s Server) WithDefaults() Server {
	for _, d := range []struct {
		field *string
		value string
	}{{&s.Data, DefaultData}, {&s.HTTP, DefaultHTTP}, {&s.AMQP, DefaultAMQP}, {&s.LogFormat, "text"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if s.MaxMessage == 0 {
		s.MaxMessage = surgetank.DefaultMaxMessage
	}
	return s
}

// Validate returns an error if settings cannot work together. The error names the key.
func (s Server) Validate() error {
	s = s.WithDefaults()
	for _, a := range []struct{ field, value string }{{"server.http", s.HTTP}, {"server.amqp", s.AMQP}, {"server.amqps", s.AMQPS}} {
		if a.value == "" || a.value == Off {
			continue
		}
		if why := badAddress(a.value); why != "" {
			return surgetank.FieldErrorf(a.field, "%q is not an address: %s; write HOST:PORT, or off", a.value, why)
		}
	}
	switch {
	case (s.TLSCert == "") != (s.TLSKey == ""):
		return surgetank.FieldErrorf("server.tls", "cert and key belong together; set both")
	case s.AMQPS != "" && s.AMQPS != Off && s.TLSCert == "":
		return surgetank.FieldErrorf("server.amqps", "AMQP over TLS needs server.tls with cert and key")
	case s.HTTP == Off && s.AMQP == Off && (s.AMQPS == "" || s.AMQPS == Off):
		return surgetank.FieldErrorf("server", "http and amqp are both off; nothing could reach the server")
	case s.Shards < 0 || s.Shards > maxShards:
		return surgetank.FieldErrorf("server.shards", "shards must be between 1 and %d, not %d", maxShards, s.Shards)
	case s.MaxMessage < 1 || s.MaxMessage > surgetank.CeilingMaxMessage:
		return surgetank.FieldErrorf("server.max_message", "max_message must be between 1 byte and 128MiB, not %d bytes", s.MaxMessage)
	case s.SegmentBytes != 0 && (s.SegmentBytes < minSegment || s.SegmentBytes > maxSegment):
		return surgetank.FieldErrorf("server.disk.segment", "segment must be between 1MiB and 1GiB, not %d bytes", s.SegmentBytes)
	case s.WasteBytes != 0 && s.WasteBytes < minWaste:
		return surgetank.FieldErrorf("server.disk.waste", "waste must be at least 1MiB, not %d bytes", s.WasteBytes)
	case s.ScrubEvery > 0 && (s.ScrubEvery < minScrubEvery || s.ScrubEvery > maxScrubEvery):
		return surgetank.FieldErrorf("server.scrub.every", "every must be off or between %v and %v, not %v", minScrubEvery, maxScrubEvery, s.ScrubEvery)
	case s.ScrubRate != 0 && s.ScrubRate < minScrubRate:
		return surgetank.FieldErrorf("server.scrub.rate", "rate must be at least 64KiB (a second), not %d bytes", s.ScrubRate)
	case s.LogFormat != "text" && s.LogFormat != "json":
		return surgetank.FieldErrorf("server.log.format", "the log format must be text or json, not %.40q", s.LogFormat)
	}
	return nil
}

func badAddress(s string) string {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "it has no port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return "the port must be a number from 0 to 65535"
	}
	return ""
}

func (r *reader) server(s *Server, n *node) {
	if n.kind == kindNull {
		return
	}
	if n.kind != kindMap {
		r.add(n, "server", "this must be a map of settings")
		return
	}
	before := len(r.list)
	places := map[string]*node{"server": n}
	for _, e := range n.entries {
		path := "server." + e.key
		places[path] = e.value
		switch e.key {
		case "data":
			s.Data = r.str(e.value, path)
		case "http":
			s.HTTP = r.str(e.value, path)
		case "amqp":
			s.AMQP = r.str(e.value, path)
		case "amqps":
			s.AMQPS = r.str(e.value, path)
		case "trusted_proxies":
			s.TrustedProxies = r.prefixes(e.value, path)
		case "sqlite_dir":
			s.SQLiteDir = r.str(e.value, path)
		case "shards":
			r.shards(s, e.value, path)
		case "max_message":
			if v, err := settings.ParseSize(r.str(e.value, path)); err != nil {
				r.add(e.value, path, "%s", err)
			} else {
				s.MaxMessage = v
			}
		case "tls":
			r.section(e, path, "cert, key", map[string]func(string){
				"cert": func(v string) { s.TLSCert = v },
				"key":  func(v string) { s.TLSKey = v },
			})
		case "disk":
			segment, waste, reopen := e.value.get("segment"), e.value.get("waste"), e.value.get("reopen_for")
			bytes := func(into *int64, at *node, key string) func(string) {
				return func(v string) {
					var err error
					if *into, err = settings.ParseSize(v); err != nil {
						r.add(at, path+key, "%s", err)
					}
				}
			}
			r.section(e, path, "segment, waste, reopen_for", map[string]func(string){
				"segment": bytes(&s.SegmentBytes, segment, ".segment"),
				"waste":   bytes(&s.WasteBytes, waste, ".waste"),
				"reopen_for": func(v string) {
					switch d, err := settings.ParseDuration(v); {
					case v == Off:
						s.ReopenFor = -1
					case v == "forever":
						s.ReopenFor = 0
					case err != nil || d <= 0:
						r.add(reopen, path+".reopen_for", "this must be a time like 10m, forever, or off, not %.40q", v)
					default:
						s.ReopenFor = d
					}
				},
			})
			for key, at := range map[string]*node{".segment": segment, ".waste": waste} {
				if at != nil {
					places[path+key] = at
				}
			}
		case "scrub":
			every, rate := e.value.get("every"), e.value.get("rate")
			r.section(e, path, "every, rate", map[string]func(string){
				"every": func(v string) {
					if v == Off {
						s.ScrubEvery = -1
					} else if d, err := settings.ParseDuration(v); err != nil || d <= 0 {
						r.add(every, path+".every", "this must be a time like 24h, or off, not %.40q", v)
					} else {
						s.ScrubEvery = d
					}
				},
				"rate": func(v string) {
					var err error
					if s.ScrubRate, err = settings.ParseSize(v); err != nil {
						r.add(rate, path+".rate", "%s", err)
					}
				},
			})
			for key, at := range map[string]*node{".every": every, ".rate": rate} {
				if at != nil {
					places[path+key] = at
				}
			}
		case "log":
			at := e.value.get("level")
			r.section(e, path, "level, format", map[string]func(string){
				"level": func(v string) {
					if err := s.LogLevel.UnmarshalText([]byte(v)); err != nil {
						r.add(at, path+".level", "the level must be debug, info, warn or error, not %.40q", v)
					}
				},
				"format": func(v string) { s.LogFormat = v },
			})
			if f := e.value.get("format"); f != nil {
				places[path+".format"] = f
			}
		default:
			r.unknown(&e.at, "server", e.key, "data, http, amqp, amqps, tls, trusted_proxies, sqlite_dir, max_message, disk, scrub, log")
		}
	}
	if len(r.list) > before {
		return
	}
	if err := s.Validate(); err != nil {
		field := "server"
		if e, ok := err.(*surgetank.Error); ok && e.Field != "" {
			field = e.Field
		}
		at := places[field]
		if at == nil {
			at = n
		}
		r.add(at, field, "%s", err)
	}
}

// prefixes reads a list of addresses and networks.
func (r *reader) prefixes(n *node, path string) (list []netip.Prefix) {
	if n.kind != kindList {
		r.add(n, path, "this must be a list of addresses or networks such as [10.0.0.7, 192.168.0.0/16]")
		return nil
	}
	for i, item := range n.items {
		at := path + "." + strconv.Itoa(i)
		text := r.str(item, at)
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, aerr := netip.ParseAddr(text)
			if aerr != nil {
				r.add(item, at, "%.60q is no address and no network; write 10.0.0.7 or 192.168.0.0/16", text)
				continue
			}
			p = netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen())
		}
		if p.Bits() == 0 {
			r.add(item, at, "%.60q is every address; then each client could choose the address it seems to come from", text)
			continue
		}
		list = append(list, p.Masked())
	}
	return list
}

// section reads a map of a few text settings.
func (r *reader) section(e entry, path, known string, set map[string]func(string)) {
	if e.value.kind != kindMap {
		r.add(e.value, path, "this must be a map with the keys %s", known)
		return
	}
	for _, inner := range e.value.entries {
		if do := set[inner.key]; do != nil {
			do(r.str(inner.value, join(path, inner.key)))
		} else {
			r.unknown(&inner.at, path, inner.key, known)
		}
	}
}

func (r *reader) str(n *node, path string) string {
	if n.kind != kindScalar || strings.TrimSpace(n.text) == "" {
		r.add(n, path, "this must be a text; give it a value, or remove the key")
		return ""
	}
	return n.text
}

// shards reads the number of shards, or the list of their directories.
func (r *reader) shards(s *Server, n *node, path string) {
	if n.kind != kindList {
		if v, err := strconv.Atoi(r.str(n, path)); err != nil || v < 1 || v > maxShards {
			r.add(n, path, "this must be a number from 1 to %d, or a list with the directory of each shard", maxShards)
		} else {
			s.Shards = v
		}
		return
	}
	if s.Shards = len(n.items); s.Shards < 1 || s.Shards > maxShards {
		r.add(n, path, "the list must have 1 to %d shards", maxShards)
		return
	}
	s.ShardDirs = make([]string, len(n.items))
	for i, item := range n.items {
		at := path + "[" + strconv.Itoa(i) + "]"
		if item.kind != kindMap {
			r.add(item, at, "this must be a map with the key dir")
			continue
		}
		for _, e := range item.entries {
			if e.key != "dir" {
				r.add(e.value, at, "the key %s is not known; known: dir", e.key)
				continue
			}
			s.ShardDirs[i] = r.str(e.value, at+".dir")
		}
	}
}
