#!/usr/bin/env bash
# Runs real clients' own tests against a real `surgetank serve` on an empty directory:
#
# - The integration tests of RabbitMQ's Go client, on which this module's tests depend anyway.
# - The suites in scripts/conformance (Node, Ruby, Python). Their sources come from GitHub, or from
#   clones in the directory CONFORMANCE_SRC. Their tools come from Debian and npm.
# - Every suite NAME.sh in the directory CONFORMANCE_SUITES, if that is set. AMQP_URL and MGMT_PORT
#   are the server's. A suite exits with 0 if its tests pass.
#
# CONFORMANCE_ONLY names the suites to run ("amqplib bunny"). A suite that cannot run here is listed
# with the reason. The tests have fixed addresses: ports 5672 and 15672 must be free.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

work=$(mktemp -d)
server=
finish() {
  [[ -z $server ]] || { kill -INT "$server" 2>/dev/null && wait "$server" || true; }
  rm -rf "$work"
}
trap finish EXIT

step "building"
go build -o "$work/surgetank" ./cmd/surgetank
client=github.com/rabbitmq/amqp091-go
go test -c -tags integration -o "$work/client.test" "$client"

# fresh stops the last server and starts one on an empty directory.
fresh() {
  ran=$((ran + 1))
  [[ -z $server ]] || { kill -INT "$server"; wait "$server"; }
  rm -rf "$work/data"
  # A test of rascal has messages of 20 MB. RabbitMQ 3 accepts 128 MiB.
  echo 'server: {max_message: 32MiB}' >"$work/config.yaml"
  "$work/surgetank" serve --config "$work/config.yaml" --data "$work/data" --amqp 127.0.0.1:5672 --http 127.0.0.1:15672 --log-level error >"$work/log" 2>&1 &
  server=$!
  for _ in $(seq 100); do
    curl -sf http://127.0.0.1:15672/readyz >/dev/null && return
    kill -0 "$server" 2>/dev/null || die "the server did not start: $(cat "$work/log")"
    sleep 0.1
  done
  die "the server does not listen"
}

export AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ MGMT_PORT=15672 SURGETANK=$work/surgetank CONFORMANCE_WORK=$work
failed=() missing=() ran=0
wanted() { [[ -z ${CONFORMANCE_ONLY:-} || " $CONFORMANCE_ONLY " == *" $1 "* ]]; }

if wanted go; then
  step "$client"
  fresh
  # The tests read files in the directory of their sources.
  (cd "$(go list -f '{{.Dir}}' "$client")" && "$work/client.test" -test.v -test.timeout 10m) >"$work/client.log" 2>&1 || failed+=("$client")
  printf '%s: %s passed, %s failed, %s skipped\n' "$client" "$(grep -c -- '^--- PASS' "$work/client.log")" \
    "$(grep -c -- '^--- FAIL' "$work/client.log")" "$(grep -c -- '^--- SKIP' "$work/client.log")"
  grep -B20 -- '^--- FAIL' "$work/client.log" || true
fi

for suite in scripts/conformance/*.sh; do
  name=$(basename "$suite" .sh)
  [[ $name != lib ]] && wanted "$name" || continue
  step "$name"
  fresh
  rc=0
  "$suite" || rc=$?
  case $rc in 0) ;; 77) missing+=("$name") ;; *) failed+=("$name") ;; esac
done

for suite in ${CONFORMANCE_SUITES:+"$CONFORMANCE_SUITES"/*.sh}; do
  name=$(basename "$suite" .sh)
  case $name in lib | compare | amqp091-go) continue ;; esac
  step "$name"
  fresh
  CONF_CACHE=$work/conf "$suite" || failed+=("$name")
done

((ran > 0)) || die "CONFORMANCE_ONLY is \"$CONFORMANCE_ONLY\", and no suite has such a name; names are go and those of scripts/conformance/*.sh"
((${#missing[@]} == 0)) || warn "not run, see above: ${missing[*]}"
((${#failed[@]} == 0)) || die "failed: ${failed[*]}"
