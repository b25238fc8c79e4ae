#!/usr/bin/env bash
# Checks for the programs that the tests need: Go, a C compiler (for the race detector), PostgreSQL
# and others. As root on Debian it installs the missing ones. On other systems it lists them. With
# CI=true, a missing program is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

command -v go >/dev/null || die "go is not in PATH; install Go 1.26 or newer from https://go.dev/dl/"

missing=() packages=()
command -v cc >/dev/null || command -v gcc >/dev/null || { missing+=("a C compiler (for the race detector)"); packages+=(gcc libc6-dev); }
if [[ $(uname -s) == Linux ]]; then
  command -v strace >/dev/null || { missing+=("strace (for injected disk errors)"); packages+=(strace); }
  command -v nft >/dev/null || [[ -x /usr/sbin/nft ]] || { missing+=("nft (for a network that is cut)"); packages+=(nftables); }
  command -v mkfs.ext4 >/dev/null || { missing+=("mkfs.ext4 (for disks that hang or turn read-only)"); packages+=(e2fsprogs); }
fi
pg_bin >/dev/null || { missing+=("PostgreSQL server programs (initdb, postgres)"); packages+=(postgresql); }
command -v pgbouncer >/dev/null || [[ -x /usr/sbin/pgbouncer ]] || { missing+=("pgbouncer (for sinks behind a pooler)"); packages+=(pgbouncer); }

if ((${#packages[@]})) && debian_root; then
  step "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # The tests start their own servers, so Debian should not create one.
  mkdir -p /etc/postgresql-common
  [[ -e /etc/postgresql-common/createcluster.conf ]] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  apt-get update -q >&2
  apt-get install -yq --no-install-recommends "${packages[@]}" >&2
  missing=()
fi

if ((${#missing[@]})); then
  printf 'missing: %s\n' "${missing[@]}" >&2
  printf 'On Debian or Ubuntu: sudo apt-get install %s\n' "${packages[*]}" >&2
  [[ ${CI:-} == true ]] && die "CI=true: nothing may be missing"
  warn "tests that need these will be skipped, and say so"
fi
