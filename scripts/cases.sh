#!/usr/bin/env bash
# Runs a directory of cases against this checkout: cases.sh DIR [NUMBER…]. A case is a small script
# that uses the built binary. It exits with 0 if the outcome is right. The cases are separate
# material and not in this repository. If the directory is missing, the error says what to do.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

dir=${1:?the directory of the cases}
shift
[[ -x $dir/run.sh ]] || die "there is no $dir/run.sh. The cases are separate material; say where they are: make cases CASES=DIR"
dir=$(cd "$dir" && pwd)

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
chmod 755 "$build" # cases run the binary as other users too
step "building surgetank"
go build -trimpath -o "$build/surgetank" ./cmd/surgetank
step "running $dir/run.sh $*"
ST=$build/surgetank "$dir/run.sh" "$@"
