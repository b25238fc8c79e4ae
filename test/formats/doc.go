// Package formats guards the format of data directories. Each released format level has a golden
// directory in testdata: an archive that a build of that level wrote, and a text with everything
// that a user sees after the directory was opened.
//
//   - TestGoldenDirectories opens each golden directory and compares the text. The newest snapshot
//     is removed once, so that the records behind the older one are replayed too.
//   - TestNewestIsComplete fails if the newest golden directory lacks a record kind, a snapshot
//     frame, a flag of a message or a setting that the code knows.
//
// `go test ./test/formats -write` writes the golden directory of the level that this build writes
// anew; -text writes only the texts. docs/format.md tells when to do so.
package formats
