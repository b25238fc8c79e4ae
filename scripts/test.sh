#!/usr/bin/env bash
# Runs the steps of `make test` and .ci/run. Every step runs even if an earlier one failed, so that
# one run shows all failures. The summary at the end lists each step with its time. The exit code is
# 0 only if all steps passed.
set -uo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

# If the checkout belongs to another user, as on build machines, Go cannot read its version control.
# The tests do not need it.
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
export HOME="${HOME:-/root}"

names=() results=() seconds=() failed=0

run() { # run NAME COMMAND…
  local name=$1 start=$SECONDS
  shift
  step "$name"
  if "$@"; then results+=(ok); else results+=(FAILED); failed=1; fi
  names+=("$name"); seconds+=($((SECONDS - start)))
}

formatted() {
  local out
  out=$(gofmt -l .) || return 1
  [[ -z $out ]] || { printf 'not formatted, run gofmt -w on:\n%s\n' "$out" >&2; return 1; }
}

# The race detector is useful only in packages whose goroutines share data.
race() {
  if [[ $(go env CGO_ENABLED) != 1 ]] || ! command -v "$(go env CC)" >/dev/null; then
    [[ ${CI:-} == true ]] && { echo "CI=true: the race detector needs cgo and a C compiler" >&2; return 1; }
    warn "SKIPPED: the race detector needs cgo and a C compiler"
    return 0
  fi
  local dirs=() d
  for d in ./client/... ./embedded/... ./worker/... ./sink/... ./internal/amqp/... ./internal/broker/... ./internal/disklog/... \
           ./internal/httpapi/... ./internal/jetlog/... ./internal/lease/... ./internal/memlog/... ./internal/metacache/... ./internal/policy/... ./internal/server/... ./internal/shards/... ./internal/supervise/... \
           ./serve/...; do
    [[ -d ${d%/...} ]] && dirs+=("$d")
  done
  ((${#dirs[@]})) || return 0
  go test -race -short -timeout 8m "${dirs[@]}"
}

# On a build machine the simulator runs its campaign: ten thousand seeds, about half a million crash
# states, a fault at every operation, and built-in defects that its checkers must find. Every seventh
# seed has several shards, and 200 more seeds are only such. On other machines `go test ./...` runs a
# few seeds, and `make sim` more.
simulator() {
  if [[ ${CI:-} != true ]]; then
    echo "a few seeds ran with the tests; CI=true, or make sim, runs thousands" >&2
    return 0
  fi
  go test ./internal/sim -v -run 'TestSim$|TestShards|EveryOperation|TestRot' -seeds 10000 -timeout 30m &&
    SURGETANK_SIM=mutants go test ./internal/sim -run Mutants -timeout 10m
}

scripts/deps.sh || exit 1
run "format"        formatted
run "vet"           go vet ./...
run "shards"        env SURGETANK_TEST_SHARDS=3 go test -count=1 -timeout 5m ./brokertest -run 'TestMemory|TestDisk'
run "tests"         go test -timeout 8m ./...
run "simulator"     simulator
run "race detector" race
run "fuzzers, 2 s each" env FUZZTIME="${FUZZTIME:-2s}" scripts/fuzz.sh
run "cross-compile" scripts/cross.sh

printf '\n%-16s %-7s %s\n' step result seconds >&2
for i in "${!names[@]}"; do printf '%-16s %-7s %s\n' "${names[$i]}" "${results[$i]}" "${seconds[$i]}" >&2; done
if ((failed)); then echo 'make test: FAILED' >&2; else echo 'make test: all passed' >&2; fi
exit $failed
