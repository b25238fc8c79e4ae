#!/usr/bin/env bash
# Builds every package for each supported platform. Builds for other platforms only show that the
# packages compile. Without optimisation they need half the time.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

host="$(go env GOHOSTOS)/$(go env GOHOSTARCH)"
for os in linux darwin windows; do
  for arch in amd64 arm64; do
    flags=()
    [[ $os/$arch == "$host" ]] || flags=(-gcflags='all=-N -l')
    printf '%s/%s\n' "$os" "$arch" >&2
    CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build "${flags[@]}" ./... || die "does not build for $os/$arch"
  done
done
