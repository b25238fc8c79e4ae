# Everything a contributor runs. `make help` lists the targets.
SHELL := /bin/bash
GO    ?= go

.PHONY: help test deps build lint shards race cross bench bench-rules bench-amqp cases chaos-main chaos-target demo-level conformance sim sim-shards sim-release faults soak memory damage fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

test: ## install the programs that the tests need, then vet, format check, tests, race detector, cross-compiles
	@scripts/test.sh

deps: ## install the programs that the tests need (root on Debian), or list the missing ones
	@scripts/deps.sh

build: ## build ./surgetank
	$(GO) build -trimpath -o surgetank ./cmd/surgetank

lint: ## only the architecture tests: layers, determinism, forbidden dependencies, file lengths
	$(GO) test ./internal/lint

shards: ## the suites of brokers, doors and clients with several shards; SHARDS=3
	SURGETANK_TEST_SHARDS=$(or $(SHARDS),3) $(GO) test -timeout 20m ./brokertest ./embedded ./internal/amqp/... ./internal/httpapi ./internal/policy ./internal/server ./client ./worker ./sink

race: ## every test under the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./...

cross: ## build for linux, darwin and windows on amd64 and arm64
	@scripts/cross.sh

bench: ## measure an embedded broker and the sink against their bounds; writes to bench/results (minutes)
	$(GO) run ./bench

bench-rules: ## measure what each rule of docs/flow-control.md costs on the hot path, the memory of 5 million groups, and a quiet group's wait (minutes, 8 GiB)
	$(GO) test ./internal/queue -run - -bench 'Rules' -benchtime 300x -timeout 0
	$(GO) test ./embedded -run - -bench 'Rules' -benchtime 100x -timeout 0
	$(GO) test ./internal/queue -run - -bench 'QuietGroup|GroupMemory' -benchtime 1x -timeout 0

chaos-main: ## publish → PostgreSQL under kill -9 of both; CHAOS_INPUT=FILE CHAOS_FLAGS='-kills 20'; writes to bench/results
	@mkdir -p bench/results
	$(GO) run ./test/chaos -out bench/results $(CHAOS_FLAGS)

chaos-target: ## restores, failovers, migrations and full disks of a sink's target, with a judge (Linux, best as root); TARGET_FLAGS='-rounds 300'
	@mkdir -p bench/results
	$(GO) run ./test/targets -out bench/results $(TARGET_FLAGS)

demo-level: ## drain a backlog into a PostgreSQL server that others use: 64 naive workers and level.adaptive, then an outage; writes tables and plots to bench/results (minutes); DEMO_FLAGS='-rate 300'
	@mkdir -p bench/results
	$(GO) run ./test/demolevel -out bench/results $(DEMO_FLAGS)

cases: ## run scripts of faults from real use; CASES=DIR, a separate download; CASES_ONLY='08 18'
	@scripts/cases.sh "$(or $(CASES),../shared/cases)" $(CASES_ONLY)

conformance: ## run the test suites of AMQP clients (Go, Node, Ruby, Python) against a real server; CONFORMANCE_ONLY=… CONFORMANCE_SRC=… CONFORMANCE_SUITES=… (see the script)
	@scripts/conformance.sh

bench-amqp: ## measure RabbitMQ and Surgetank with one AMQP client; needs Debian's rabbitmq-server (an hour)
	$(GO) run ./bench/amqp

sim: ## simulate the whole broker from SEEDS seeds (default 3000, FIRST=seed); a failure prints its seed and a script
	$(GO) test ./internal/sim -v -run 'TestSim$$|EveryOperation|TestRot' -timeout 0 -seeds $(or $(SEEDS),3000) -first $(or $(FIRST),1)

sim-shards: ## simulate runs with several shards until STATES crash states (default 1000000) are checked; FIRST=seed continues
	$(GO) run ./test/simulate -shards -states $(or $(STATES),1000000) -first $(or $(FIRST),1)

sim-release: ## the release run: simulate until STATES crash states (default 5000000) are checked; FIRST=seed continues
	$(GO) run ./test/simulate -states $(or $(STATES),5000000) -first $(or $(FIRST),1)

faults: ## a campaign of faults against a real server (Linux, best as root); FAULTS_FLAGS='-long'
	@mkdir -p bench/results
	@scripts/deps-faults.sh
	$(GO) run ./test/faults -out bench/results $(FAULTS_FLAGS)

soak: ## run at 70 % of the capacity for 30 minutes with churn and a kill -9 every 30 s (Linux); SOAK_FLAGS='-for 10m'
	@mkdir -p bench/results
	$(GO) run ./test/soak -out bench/results $(SOAK_FLAGS)

memory: ## show that memory is bounded with clients that misbehave (Linux, best as root); SOAK_FLAGS='-only idle'
	@mkdir -p bench/results
	$(GO) run ./test/soak -memory -out bench/results $(SOAK_FLAGS)

damage: ## flip every bit and cut at every byte of small data directories: verify must report the damage or it is harmless, and repair works (minutes); DAMAGE_FLAGS='-only small/killed'
	$(GO) test ./internal/broker -v -run EveryDamage -timeout 0 -everybit $(DAMAGE_FLAGS)

fuzz: ## fuzz every target for FUZZTIME each (default 20s)
	@scripts/fuzz.sh

clean: ## remove ./surgetank
	rm -f surgetank
