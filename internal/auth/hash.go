package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"

	"github.com/surgetank/surgetank"
)

// Cost of one Argon2id hash (RFC 9106), as OWASP recommends for interactive logins: 19 MiB, two
// passes, one lane.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonLanes   = 1
	argonSaltLen = 16
	argonKeyLen  = 32
)

// At most maxHashes hashes run at a time. So logins use at most 2 × 19 MiB and leave processors for
// messages. At most maxWaiting further logins wait for a hash; more are told to come back.
const (
	maxHashes  = 2
	maxWaiting = 256
)

// hasher computes password hashes within these limits. It is safe for use by many goroutines.
type hasher struct {
	slots   chan struct{}
	waiting atomic.Int64
	calls   atomic.Int64 // number of computed hashes; tests use it to show that unknown users cost the same
}

func newHasher() *hasher { return &hasher{slots: make(chan struct{}, maxHashes)} }

// acquire waits for one of the slots to hash.
func (h *hasher) acquire(ctx context.Context) error {
	if h.waiting.Add(1) > maxWaiting {
		h.waiting.Add(-1)
		return &surgetank.Error{Code: surgetank.CodeBusy, RetryAfter: retryBusy,
			Message: "too many logins are being checked; try again in a moment"}
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &surgetank.Error{Code: surgetank.CodeBusy, RetryAfter: retryBusy, Err: ctx.Err(),
			Message: "the login was given up before the password could be checked; try again"}
	}
}

func (h *hasher) release() { <-h.slots }

// key computes Argon2id. The caller holds a slot.
func (h *hasher) key(password Secret, p phc) []byte {
	h.calls.Add(1)
	return argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.lanes, uint32(len(p.key)))
}

// hash makes a new salted hash of a password in PHC string form.
func (h *hasher) hash(ctx context.Context, password Secret) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer h.release()
	p := phc{memory: argonMemory, time: argonTime, lanes: argonLanes, salt: make([]byte, argonSaltLen), key: make([]byte, argonKeyLen)}
	rand.Read(p.salt)
	p.key = h.key(password, p)
	return p.String(), nil
}

// verify reports whether a password has the given hash. The caller holds a slot.
func (h *hasher) verify(password Secret, p phc) bool {
	return subtle.ConstantTimeCompare(h.key(password, p), p.key) == 1
}

// phc is a hash in the PHC string format: $argon2id$v=19$m=19456,t=2,p=1$salt$key. Salt and key are
// in unpadded base64.
type phc struct {
	memory, time uint32
	lanes        uint8
	salt, key    []byte
}

func (p phc) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.time, p.lanes,
		b64.EncodeToString(p.salt), b64.EncodeToString(p.key))
}

// parsePHC reads the format of String. The costs are limited, so a damaged record cannot use up all
// memory.
func parsePHC(s string) (phc, error) {
	bad := fmt.Errorf("the stored password hash is not an Argon2id hash that this version knows")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return phc{}, bad
	}
	var p phc
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.lanes); err != nil {
		return phc{}, bad
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	p.key, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	switch {
	case err1 != nil, err2 != nil,
		p.memory < 8 || p.memory > 256<<10, p.time < 1 || p.time > 16, p.lanes < 1 || p.lanes > 16,
		len(p.salt) < 8 || len(p.salt) > 64, len(p.key) < 16 || len(p.key) > 64:
		return phc{}, bad
	}
	return p, nil
}
