# Functions for the suites in this directory. A suite runs the tests of one client against a server
# at 127.0.0.1:5672 (AMQP, guest) and 127.0.0.1:15672 (HTTP). Its last line is "NAME: P passed, F
# failed, S skipped". It exits with 0 if P is positive and F is 0. If the suite cannot run here, it
# exits with 77, and its last line says why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/lib.sh

here=$PWD/scripts/conformance
name=$(basename "$0" .sh)
: "${CONFORMANCE_WORK:=$(mktemp -d)}"

cannot() {
  echo "$name: not run: $*"
  exit 77
}

# need COMMAND PACKAGE… installs Debian packages when the command fails.
need() {
  local check=$1
  shift
  bash -c "$check" >/dev/null 2>&1 && return
  if debian_root; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -yq --no-install-recommends "$@" >&2 || { apt-get update -q >&2 && apt-get install -yq --no-install-recommends "$@" >&2; } || true
  fi
  bash -c "$check" >/dev/null 2>&1 || cannot "it needs $*"
}

# sources REPOSITORY COMMIT makes a new work tree of a GitHub repository and prints its path. It needs
# no network if the directory CONFORMANCE_SRC has clones with the names of the repositories.
sources() {
  local to=$CONFORMANCE_WORK/${1#*/} from=${CONFORMANCE_SRC:-}/${1#*/}
  rm -rf "$to" && mkdir -p "$to"
  if [[ -n ${CONFORMANCE_SRC:-} && -e $from ]]; then
    # git archive would leave out tests that a repository marks as export-ignore.
    GIT_INDEX_FILE=$to.index git -C "$from" --work-tree="$to" read-tree "$2" >&2 &&
      GIT_INDEX_FILE=$to.index git -C "$from" --work-tree="$to" checkout-index -a -f >&2 || return 1
  else
    git -C "$to" init -q && git -C "$to" fetch -q --depth 1 "https://github.com/$1.git" "$2" >&2 && git -C "$to" checkout -q FETCH_HEAD >&2 || return 1
  fi
  echo "$to"
}

# result PASSED FAILED SKIPPED ends a suite.
result() {
  echo "$name: $1 passed, $2 failed, $3 skipped"
  ((${2:-1} == 0 && ${1:-0} > 0))
}
