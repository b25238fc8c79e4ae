#!/usr/bin/env bash
# bunny, the AMQP client of Ruby, in Debian's version: its specs, without those that need TLS certificates, Toxiproxy or a server that they can restart.
# SURGETANK is the program, which makes the users that the specs log in as.
source "$(dirname "$0")/lib.sh"
need 'rspec --version && ruby -e "require %q(amq/protocol)"' ruby-bunny ruby-rspec
tree=$(sources ruby-amqp/bunny 2.19.0) || cannot "its sources cannot be fetched"
export SURGETANK_SERVER=http://127.0.0.1:15672
surgetank() { "${SURGETANK:-surgetank}" "$@" >&2; }
surgetank vhost set bunny_testbed
surgetank user set bunny_gem --password <<<bunny_password
surgetank user set bunny_reader --password <<<reader_password
surgetank user allow bunny_gem --vhost bunny_testbed --all
surgetank user allow guest --vhost bunny_testbed --all
surgetank user allow bunny_reader --vhost bunny_testbed --configure '^---$' --write '^---$' --read '.*'
cd "$tree"
rm -f .rspec
# The specs ask Bundler for gems that Debian has installed.
mkdir -p "$CONFORMANCE_WORK/ruby"
echo 'module Bundler; def self.require(*) end; end' >"$CONFORMANCE_WORK/ruby/bundler.rb"
log=$CONFORMANCE_WORK/$name.log
CI=true rspec -I "$CONFORMANCE_WORK/ruby" -I lib -f p spec/higher_level_api spec/lower_level_api spec/issues spec/unit \
  --exclude-pattern '**/{tls_connection,toxiproxy,connection_recovery}_spec.rb' >"$log" 2>&1 || sed -n '/^Failed examples/,$p' "$log"
summary=$(grep -E '^[0-9]+ examples?, ' "$log" | tail -1)
count() { grep -oE "[0-9]+ $1" <<<"$summary" | cut -d' ' -f1 || true; }
total=$(count example) failed=$(count failure) pending=$(count pending)
result "$((${total:-0} - ${failed:-0} - ${pending:-0}))" "${failed:-0}" "${pending:-0}"
