#!/usr/bin/env bash
# Runs all tests of amqplib, an AMQP client for Node.js. The time limit of a test is ten seconds, not
# one.
source "$(dirname "$0")/lib.sh"
need 'node --version && npm --version' nodejs npm
tree=$(sources amqp-node/amqplib v2.0.1) || cannot "its sources cannot be fetched"
cd "$tree"
npm install --no-save --ignore-scripts --no-audit --no-fund claire@0.4.1 >"$CONFORMANCE_WORK/npm.log" 2>&1 || cannot "npm install failed: $CONFORMANCE_WORK/npm.log"
# A test connects to [::1].
node -e 'const n = require("net"); n.createServer({allowHalfOpen: true}, s => { const t = n.connect({port: 5672, host: "127.0.0.1", allowHalfOpen: true});
  s.pipe(t).pipe(s); s.on("error", () => t.destroy()); t.on("error", () => s.destroy()) }).listen(5672, "::1")' &
forwarder=$!
trap 'kill $forwarder 2>/dev/null || true' EXIT
log=$CONFORMANCE_WORK/$name.log
URL=amqp://127.0.0.1 node --test --test-timeout=10000 --test-concurrency=1 --test-reporter=tap >"$log" 2>&1 || grep -B1 -A12 '^ *not ok' "$log" || true
count() { sed -n "s/^# $1 //p" "$log" | tail -1; }
result "$(count pass)" "$(count fail)" "$(count skipped)"
