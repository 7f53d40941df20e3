# `make` lists the targets. Only Go, git, make and apt are needed; scripts/postgres.sh
# finds or installs the Postgres binaries.

SHELL    := /bin/bash
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null)
FUZZTIME ?= 10s
TESTFLAGS ?=
ARGS     ?=

# In recipes, so that only the targets that need Postgres look for it.
WITH_POSTGRES = bin=$$(scripts/postgres.sh) && LOCKSTEP_PG_BIN="$$bin"
WITH_CHROMIUM = chromium=$$(scripts/chromium.sh) && LOCKSTEP_CHROMIUM="$$chromium"

.DEFAULT_GOAL := help
.PHONY: help build demo test matrix race check fmt fmt-check vet lint chaos powercut damage outage assets screenshots clients fuzz bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/lockstep
	go build -trimpath -ldflags '-s -w -X main.released=$(VERSION)' -o bin/lockstep ./cmd/lockstep

demo: build ## private Postgres, stream, pgbench, workers, one live line (ARGS="--for 20s")
	@$(WITH_POSTGRES) bin/lockstep demo $(ARGS)

test: ## run all tests, against a real Postgres
	@$(WITH_CHROMIUM) && export LOCKSTEP_CHROMIUM && $(WITH_POSTGRES) go test $(TESTFLAGS) ./...

matrix: ## the suites of capture, engine and torture on Postgres 14 to 18 (VERSIONS="14 18" ARGS="./internal/capture/...")
	@ARGS="$(ARGS)" scripts/matrix.sh $(VERSIONS)

race: ## run all tests with the race detector
	@$(WITH_POSTGRES) go test -race $(TESTFLAGS) ./...

check: fmt-check vet lint build test ## everything that CI runs

fmt: ## format the Go files
	gofmt -w .

fmt-check: # fails when a file is not formatted
	@unformatted=$$(gofmt -l .) && \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi

vet: # go vet
	go vet ./...

lint: ## run golangci-lint (built once into bin/)
	@lint=$$(scripts/golangci-lint.sh) && $$lint run

CHAOS = LOCKSTEP_CHAOS=1 LOCKSTEP_BIN="$(CURDIR)/bin/lockstep" go test -count 1 -v -timeout 4h ./internal/chaos

chaos: build ## kill, cut, fill and freeze a working node (LOCKSTEP_CHAOS_SEED, _KILLS, _CHANGES), 10 minutes
	@$(WITH_POSTGRES) $(CHAOS) -run 'TestCampaign$$' $(ARGS)

powercut: build ## cut a node's power 20 times (LOCKSTEP_CHAOS_CUTS), 1 minute, root
	@$(WITH_POSTGRES) LOCKSTEP_CHAOS_CUTS=$${LOCKSTEP_CHAOS_CUTS:-20} $(CHAOS) -run 'TestPowerCut$$' $(ARGS)

outage: build ## let a webhook endpoint be away under load and kill the node twice (LOCKSTEP_CHAOS_OUTAGE seconds, _RATE), 7 minutes
	@$(WITH_POSTGRES) $(CHAOS) -run 'TestOutage$$' $(ARGS)

damage: build ## damage a node's files 100 times (LOCKSTEP_CHAOS_FLIPS), 5 minutes
	@$(WITH_POSTGRES) LOCKSTEP_CHAOS_FLIPS=$${LOCKSTEP_CHAOS_FLIPS:-100} $(CHAOS) -run 'TestDamage$$' $(ARGS)

assets: ## copy what the console's pages load from the packages of its lockfile (ARGS=--check only compares), needs npm
	@scripts/assets.sh $(ARGS)

screenshots: ## make the pictures of docs/console, some minutes
	@mkdir -p docs/console && $(WITH_CHROMIUM) && export LOCKSTEP_CHROMIUM && $(WITH_POSTGRES) \
	LOCKSTEP_SCREENSHOTS="$(CURDIR)/docs/console" go test -count 1 -run 'TestPagesInABrowser$$' ./internal/console

clients: ## the tests with published clients: supabase-js, eventsource, stripe, octokit, webhook libraries; needs npm, 3 minutes
	@$(WITH_CHROMIUM) && export LOCKSTEP_CHROMIUM && $(WITH_POSTGRES) scripts/clients.sh

fuzz: ## run each fuzz target for FUZZTIME (10s)
	@$(WITH_POSTGRES) && export LOCKSTEP_PG_BIN && \
	grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sort | while IFS=: read -r file name; do \
	  echo "== $${name#func } in $$(dirname $$file)"; \
	  go test -run '^$$' -fuzz "^$${name#func }$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)" || exit 1; \
	done

bench: build ## measure capture and delivery against their limits, some minutes
	@$(WITH_POSTGRES) bin/lockstep bench all $(ARGS)

clean: ## remove what was built
	rm -rf bin
