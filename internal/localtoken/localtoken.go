// Package localtoken lets programs of the server's own user, and of root, use the server on the
// same computer without a password.
//
// The server makes a random token at each start and writes it to two files that only its user can
// read:
//
//	DATA/local.token                  for programs that know the data directory
//	/tmp/surgetank-UID/ADDRESS.token  for programs that know the server's address, as the command line does
//
// A client sends the token over HTTP Basic authentication with an empty user name, which no user
// has. Decision 0145 says why the token is a file and not a Unix socket.
package localtoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Name is the file in the data directory.
const Name = "local.token"

const (
	suffix  = ".token"
	anyHost = "any" // instead of the host, if the server listens on every address
	size    = 32    // random bytes
)

// Token is one server's token. The zero value accepts nothing.
type Token struct {
	digest [sha256.Size]byte
	text   string
	files  []string
}

// Publish creates a token for the server with the data directory data that listens on address. It
// writes the token to its files. If a file could not be written, Publish returns the Token, which
// works, and an error that names the file.
func Publish(data string, address net.Addr) (*Token, error) {
	random := make([]byte, size)
	rand.Read(random)
	text := base64.RawURLEncoding.EncodeToString(random)
	t := &Token{digest: sha256.Sum256([]byte(text)), text: text}
	err := t.write(filepath.Join(data, Name))
	dir, dirErr := ownRuntimeDir()
	if dirErr == nil {
		var name string
		if name, dirErr = fileOf(address.String()); dirErr == nil {
			dirErr = t.write(filepath.Join(dir, name))
		}
	}
	return t, errors.Join(err, dirErr)
}

// write writes the token to a new file. The file gets its name in one step, so that no reader sees
// half a token.
func (t *Token) write(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // CreateTemp sets the mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(t.text + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // an error does not matter: the token is useless after the process ends
		return err
	}
	t.files = append(t.files, path)
	return nil
}

// Is reports whether text is the token, in a time that does not depend on text.
func (t *Token) Is(text string) bool {
	if t == nil || t.text == "" {
		return false
	}
	digest := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(digest[:], t.digest[:]) == 1
}

// Remove removes the files that still contain this token.
func (t *Token) Remove() error {
	if t == nil {
		return nil
	}
	var all []error
	for _, path := range t.files {
		if text, err := Read(path); err == nil && text == t.text {
			all = append(all, os.Remove(path))
		}
	}
	return errors.Join(all...)
}

// Read reads a token from a file. It fails if the file does not contain exactly a token, so that
// the content of another file is never sent to a server.
func Read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(b), "\r\n")
	if raw, err := base64.RawURLEncoding.DecodeString(text); err != nil || len(raw) != size {
		return "", fmt.Errorf("%s holds no token of a Surgetank server", path)
	}
	return text, nil
}

// Find returns the token of the server at host and port on this machine. ok is false if the host is
// not this machine's loopback, or if there is no token that the caller may read.
func Find(host, port string) (text string, ok bool) {
	hosts := []string{host}
	if strings.EqualFold(host, "localhost") {
		hosts = []string{"127.0.0.1", "::1"}
	} else if a, err := netip.ParseAddr(host); err != nil || !a.Unmap().IsLoopback() {
		return "", false
	}
	var newest fs.FileInfo
	for _, dir := range runtimeDirs() {
		for _, h := range append(hosts, anyHost) {
			name, err := fileOf(net.JoinHostPort(h, port))
			if err != nil {
				continue
			}
			path := filepath.Join(dir, name)
			info, err := os.Lstat(path)
			if err != nil || !info.Mode().IsRegular() || newest != nil && !info.ModTime().After(newest.ModTime()) {
				continue
			}
			if t, err := Read(path); err == nil {
				text, newest = t, info
			}
		}
	}
	return text, newest != nil
}

// fileOf returns the name of the token file for an address such as 127.0.0.1:8080.
func fileOf(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", err
	}
	if host != anyHost {
		a, err := netip.ParseAddr(host)
		if err != nil {
			return "", err
		}
		if host = a.Unmap().WithZone("").String(); a.IsUnspecified() {
			host = anyHost
		}
	}
	return strings.ReplaceAll(host, ":", "-") + "_" + port + suffix, nil // Windows allows no colon in a name
}

// ownRuntimeDir returns the directory for this user's tokens. It creates the directory if it is
// missing. It fails if another user owns the directory or may enter it.
func ownRuntimeDir() (string, error) {
	dir := runtimeDir(uid())
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if !private(dir) {
		return "", fmt.Errorf("%s is not a directory of this user alone; remove it, so that the command line finds the server by its address", dir)
	}
	return dir, nil
}

// runtimeDirs returns the directories that can contain tokens: the user's own directory, and for
// root the directories of all users. If another user's file names this server's address, its token
// is wrong and the server refuses it.
func runtimeDirs() []string {
	own := runtimeDir(uid())
	if uid() != "0" {
		return []string{own}
	}
	dirs, err := filepath.Glob(runtimeDir("*"))
	if err != nil || len(dirs) == 0 {
		return []string{own}
	}
	return dirs
}

func runtimeDir(uid string) string { return filepath.Join(base, "surgetank-"+uid) }
