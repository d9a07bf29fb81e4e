# One entry point for people and for CI. Every target does its own set-up and asks nothing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-aws plugins test check bench clean

help: ## Lists these targets
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' Makefile | awk -F '\t' '{ printf "make %-9s %s\n", $$1, $$2 }'

demo: plugins ## Puts real files through the built-in plugins and shows what came of them
	@examples/demo/run.sh

demo-aws: plugins ## Kills one of two hosts that work on a queue and a bucket, and audits what is left
	@examples/demo-aws/run.sh

plugins: ## Builds the plugins and the tests' guests for WASM, into target/plugins and target/guests
	@plugins/build.sh

# Guests and examples run in the host's tests. Natively they would only be linked, thirty times. Without the
# stand-in for AWS the tests that need it say so; the others run.
test: plugins ## Runs all tests
	-tests/stand-in.sh
	cargo test --workspace --exclude guests --exclude shout

# The host embeds the plugins, so even a check needs them.
check: plugins ## Checks formatting, lints, scripts, features, licences and advisories
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	.ci/features
	.ci/shellcheck
	.ci/deny

bench: plugins ## Runs the benchmarks
	tests/bench/run.sh $(ONLY)

clean: ## Removes everything that was built or made, demo/ with it
	cargo clean
	rm -rf demo .venv
