# All that a newcomer needs. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
CACHE := $(or $(STILLPOINT_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/stillpoint)
DENY_VERSION := 0.20.2
DENY := $(CACHE)/tools/bin/cargo-deny

.PHONY: help demo test soak bench lint

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: ## a real sharded cluster under load, a server, a checkpoint; Ctrl-C ends it (ONCE=1: ends by itself)
	$(CARGO) build --release --locked -p stillpoint -p stillpoint-lab --bins
	$(TARGET)/release/demo --binary $(TARGET)/release/stillpoint $(if $(ONCE),--once)

test: ## every test, on real mongod processes, and a short fuzzing
	$(CARGO) test --workspace --locked
	CARGO="$(CARGO)" scripts/fuzz

soak: ## the protocol's model, capture's simulation, the fold's oracle, restores, the cluster tests and fuzzing for hours (CASES=…, SEEDS=…, WORKLOADS=…, SECONDS=…, RESTORES=…, ROUNDS=…, HOURS=…)
	PROPTEST_CASES=$(or $(CASES),2000000) $(CARGO) test --release --locked -p stillpoint-core -- --nocapture invariants
	SEEDS=$(or $(SEEDS),1000000) $(CARGO) test --release --locked -p stillpoint-engine --lib simulation -- --nocapture
	CASES=$(or $(WORKLOADS),2000) $(CARGO) test --locked -p stillpoint-fold --test oracle -- --nocapture
	SECONDS=$(or $(SECONDS),600) $(CARGO) test --locked -p stillpoint --test soak -- --nocapture
	RESTORES=$(or $(RESTORES),20) $(CARGO) test --locked -p stillpoint --test cluster restore::at_any_time -- --nocapture
	RESTORES=$(or $(RESTORES),100) $(CARGO) test --locked -p stillpoint --test cluster generated:: -- --nocapture
	for round in $$(seq $(or $(ROUNDS),20)); do \
	  echo "round $$round"; $(CARGO) test --locked -p stillpoint --test cluster; \
	done
	CARGO="$(CARGO)" scripts/fuzz $$(( $(or $(HOURS),4) * 3600 ))

bench: ## ratios, each against its floor in the same run
	$(CARGO) build --release --locked -p stillpoint --bin stillpoint
	$(CARGO) run --release --locked -p stillpoint-lab --bin bench -- --binary $(TARGET)/release/stillpoint

lint: $(DENY) ## formatting, clippy with warnings as errors, licences and sources of dependencies
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(DENY) --log-level error --locked check licenses bans sources
	$(DENY) --log-level error --locked --manifest-path fuzz/Cargo.toml check licenses bans sources

$(DENY):
	$(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --root $(CACHE)/tools
