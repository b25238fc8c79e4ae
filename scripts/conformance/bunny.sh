#!/usr/bin/env bash
# Runs the specs of bunny, an AMQP client for Ruby, in Debian's version. It skips specs that need TLS
# certificates, Toxiproxy, or RabbitMQ's lists of channels, queues and exchanges over HTTP
# (connection_recovery). It also skips exchange_recovery, which tests Bunny's own objects and fails
# with this version of RSpec. SURGETANK is the program that creates the users of the specs.
source "$(dirname "$0")/lib.sh"
need 'rspec --version && ruby -e "require %q(amq/protocol)"' ruby-bunny ruby-rspec
tree=$(sources ruby-amqp/bunny 2.19.0) || cannot "its sources cannot be fetched"
export SURGETANK_SERVER=http://127.0.0.1:15672
surgetank() { "${SURGETANK:-surgetank}" "$@" >&2; }
surgetank vhost set bunny_testbed
surgetank user set bunny_gem --password <<<bunny_password
surgetank user set bunny_reader --password <<<reader_password
# Some specs log in as guest, whose first password is no login beside other users.
surgetank user set guest --password --tags administrator <<<guest
surgetank user allow bunny_gem --vhost bunny_testbed --all
surgetank user allow guest --vhost bunny_testbed --all
surgetank user allow bunny_reader --vhost bunny_testbed --configure '^---$' --write '^---$' --read '.*'
cd "$tree"
rm -f .rspec
# The specs load their gems with Bundler. Debian has installed them.
mkdir -p "$CONFORMANCE_WORK/ruby"
cat >"$CONFORMANCE_WORK/ruby/bundler.rb" <<'R'
require "json"
require "net/http"
require "ostruct"
require "erb"
module Bundler; def self.require(*) end; end
# Replaces the used part of the gem rabbitmq_http_api_client, which Debian does not have.
module RabbitMQ
  module HTTP
    class Client
      def initialize(url) = @uri = URI(url)
      def list_connections = JSON.parse(call(Net::HTTP::Get, "/api/connections").body).map { |c| OpenStruct.new(c) }
      def close_connection(name) = call(Net::HTTP::Delete, "/api/connections/" + ERB::Util.url_encode(name))
      def call(method, path)
        request = method.new(path)
        request.basic_auth "guest", "guest"
        Net::HTTP.start(@uri.host, @uri.port) { |http| http.request(request) }
      end
    end
  end
end
R
log=$CONFORMANCE_WORK/$name.log
CI=true rspec -I "$CONFORMANCE_WORK/ruby" -I lib -f p spec/higher_level_api spec/lower_level_api spec/issues spec/unit \
  --exclude-pattern '**/{tls_connection,toxiproxy,connection_recovery,exchange_recovery}_spec.rb' >"$log" 2>&1 || sed -n '/^Failed examples/,$p' "$log"
summary=$(grep -E '^[0-9]+ examples?, ' "$log" | tail -1)
count() { grep -oE "[0-9]+ $1" <<<"$summary" | cut -d' ' -f1 || true; }
total=$(count example) failed=$(count failure) pending=$(count pending)
result "$((${total:-0} - ${failed:-0} - ${pending:-0}))" "${failed:-0}" "${pending:-0}"
