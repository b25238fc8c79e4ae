package sink

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/surgetank/surgetank"
)

// absolute gives the settings with the absolute path of a file that they name. A relative path
// begins at dir, or at the working directory if dir is empty. A stored sink has an absolute path,
// so a start from another directory finds the same file.
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

// relative tells whether the settings name a file by a relative path.
func (s Spec) relative() bool {
	return kinds[s.Kind].file && s.Address != ":memory:" && !filepath.IsAbs(s.Address)
}

// adopt gives the absolute path to settings that an earlier version stored with a relative one.
// That version took the path from the working directory, so a file that is there is the sink's;
// otherwise the path begins at dir.
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

// Beside gives the settings with the path of stored ones, if the relative path here is the end of
// the path there. The same file of settings so keeps a sink's database, wherever the server or its
// data directory is now.
func (s Spec) Beside(stored Spec) Spec {
	if s.Kind == stored.Kind && s.relative() {
		path, end := filepath.ToSlash(stored.Address), "/"+filepath.ToSlash(filepath.Clean(s.Address))
		if filepath.IsAbs(stored.Address) && strings.HasSuffix(path, end) {
			s.Address = stored.Address
		}
	}
	return s
}
