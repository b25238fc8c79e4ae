#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME each (`make test` for two seconds). A crasher is kept by Go under the package's testdata/fuzz;
# commit it with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

time=${FUZZTIME:-20s} found=0
while read -r file; do
  package=./$(dirname "$file")
  while read -r target; do
    found=$((found + 1))
    step "$package $target ($time)"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x "$package"
  done < <(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file")
done < <(git ls-files -co --exclude-standard -- '*_test.go' | xargs -r grep -lE '^func Fuzz' | sort)
echo "$found fuzz targets, no failure" >&2
