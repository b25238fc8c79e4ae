# Functions for the scripts in this directory: messages, and questions about this machine.
# shellcheck shell=bash

step() { printf '\n== %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die()  { printf 'error: %s\n' "$*" >&2; exit 1; }

# debian_root succeeds if this script can install packages without asking.
debian_root() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

# pg_bin prints the directory of the newest initdb and postgres. On Debian they are not in PATH.
pg_bin() {
  local d
  while read -r d; do
    if [[ -x $d/initdb && -x $d/postgres ]]; then printf '%s\n' "$d"; return 0; fi
  done < <(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV)
  if command -v initdb >/dev/null && command -v postgres >/dev/null; then
    dirname "$(command -v initdb)"
    return 0
  fi
  return 1
}
