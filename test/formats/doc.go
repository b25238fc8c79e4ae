// Package formats guards the format of data directories. Each released format level has two files
// in testdata. One is the golden directory: an archive that a build of that level wrote. The other
// is a text with everything that a user sees after opening the directory.
//
//   - TestGoldenDirectories opens each golden directory and compares the text. It repeats this
//     without the newest snapshot, so that the records after the older snapshot are replayed, too.
//   - TestNewestIsComplete fails if the newest golden directory lacks a record kind, a snapshot
//     frame, a flag of a message or a setting that the code knows.
//
// `go test ./test/formats -write` writes the golden directory of this build's level again.
// With -text it writes only the texts. docs/format.md says when this is allowed.
package formats
