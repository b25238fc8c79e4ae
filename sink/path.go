package sink

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/surgetank/surgetank"
)

// absolute returns the settings with an absolute file path. A relative path starts at dir, or at
// the working directory if dir is empty. Stored sinks have absolute paths, so a server started in
// another directory finds the same file.
func (s Spec) absolute(dir string) (Spec, error) {
	if !s.relative() {
		return s, nil
	}
	path, err := filepath.Abs(filepath.Join(dir, s.Address))
	if err != nil {
		return s, surgetank.FieldErrorf(s.Kind+"."+kinds[s.Kind].address, "the path %.200q cannot be made absolute: %v", s.Address, err)
	}
	s.Address = path
	return s, nil
}

// relative reports whether the settings name a file by a relative path.
func (s Spec) relative() bool {
	return kinds[s.Kind].file && s.Address != ":memory:" && !filepath.IsAbs(s.Address)
}

// adopt makes the relative path of settings that an earlier version stored absolute. That version
// used the working directory, so a file that exists there is the sink's. Otherwise the path starts
// at dir.
func (s Spec) adopt(dir string) (Spec, error) {
	here, err := s.absolute("")
	if err != nil {
		return s, err
	}
	if _, err := os.Stat(here.Address); err == nil {
		return here, nil
	}
	return s.absolute(dir)
}

// Beside returns the settings with the stored absolute path, if the relative path here is the end
// of the stored one. So applying the same settings file keeps a sink's database, even after the
// server or its data directory moved.
func (s Spec) Beside(stored Spec) Spec {
	if s.Kind == stored.Kind && s.relative() {
		path, end := filepath.ToSlash(stored.Address), "/"+filepath.ToSlash(filepath.Clean(s.Address))
		if filepath.IsAbs(stored.Address) && strings.HasSuffix(path, end) {
			s.Address = stored.Address
		}
	}
	return s
}
