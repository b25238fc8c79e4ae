#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME each (`make test`: two seconds). Go writes a
# failing input to the package's testdata/fuzz. Commit it with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

time=${FUZZTIME:-20s} found=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# fuzz runs one target. If the time ends while a worker answers, go test can fail with "context
# deadline exceeded" and without an input (go.dev/issue/75804). Only then the target runs once more,
# with a warning. A failing input always fails the script.
fuzz() {
  go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 1x "$1" 2>&1 | tee "$out"
}

while read -r file; do
  package=./$(dirname "$file")
  while read -r target; do
    found=$((found + 1))
    step "$package $target ($time)"
    if ! fuzz "$package" "$target"; then
      grep -q 'context deadline exceeded' "$out" && ! grep -qE 'Failing input|testdata/fuzz|panic' "$out" || exit 1
      warn "the fuzzing engine ran out of its own time; once more"
      fuzz "$package" "$target"
    fi
  done < <(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file")
done < <(git ls-files -co --exclude-standard -- '*_test.go' | xargs -r grep -lE '^func Fuzz' | sort)
echo "$found fuzz targets, no failure" >&2
