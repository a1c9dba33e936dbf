# Bare `make` is what every change must pass. CI runs `.ci/run`, which calls `make test` and `make e2e`.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS  = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# What a browser test needs is found by name; CHROMIUM=/path/to/it overrides.
export CHROMIUM

.PHONY: all
all: check test

.PHONY: run
run: build ## start Tandem with the embedded Redis and print its URL
	@exec bin/tandem serve $(ARGS)

.PHONY: build
build: ## one static binary: bin/tandem
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/tandem ./cmd/tandem

.PHONY: deps
deps: ## redis-server and Chromium, by the system's package manager, where they are missing
	@sh scripts/deps.sh redis chromium

.PHONY: test
test: deps ## every package with the race detector, against real Redis and a real browser
	$(GO) test -race -timeout 5m ./...

# These hang on how much passes in a given time: they want the machine for themselves.
ALONE = TestLedgerSentinelFailover|TestClientStopsReading|TestPairsWaiting|TestPairRelayOfMuch|TestRollingRestart|TestStorm

.PHONY: e2e
e2e: deps ## slower suites: failing links, clusters, a real container engine, applications in other languages
	@sh scripts/deps.sh nginx node php
	$(GO) test -race -timeout 25m -tags slow -skip '$(ALONE)' ./sessionstore/... ./ws/... ./e2e/...
	$(GO) test -race -timeout 10m -tags slow -run '^($(ALONE))$$' -parallel 1 ./e2e
	e2e/compose/run.sh

.PHONY: check
check: fmt vet staticcheck vuln

.PHONY: fmt
fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt these files:"; echo "$$out"; exit 1; fi

.PHONY: vet
vet:
	$(GO) vet -tags slow ./...

.PHONY: staticcheck
staticcheck:
	$(GO) tool staticcheck -tags slow ./...

.PHONY: vuln
vuln: ## needs the vulnerability database; says so where it cannot be reached
	@sh scripts/vuln.sh

.PHONY: docs
docs: ## regenerate what is generated in docs/
	$(GO) generate ./...

.PHONY: bench
bench: ## ratios against raw Redis and raw gorilla, in one run: see bench/README.md
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: fuzz
fuzz: ## FUZZTIME each (default 30s)
	@sh scripts/fuzz.sh $${FUZZTIME:-30s}

.PHONY: help
help:
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile | expand -t 14
