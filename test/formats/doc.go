// Package formats guards the format of data directories. Each released format level has a golden
// directory in testdata: an archive written by a build of that level, and a text with everything
// that a user sees after opening the directory.
//
//   - TestGoldenDirectories opens each golden directory and compares the text. It also does so
//     without the newest snapshot, so that the records after the older one are replayed too.
//   - TestNewestIsComplete fails if the newest golden directory lacks a record kind, a snapshot
//     frame, a flag of a message or a setting that the code knows.
//
// `go test ./test/formats -write` writes the golden directory of this build's level again; -text
// writes only the texts. docs/format.md says when to do so.
package formats
