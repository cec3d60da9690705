# The front door: `make` lists what there is. The work is done by deploy/local/*.sh.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help up down status logs demo bench chaos test fmt lint doc clean-run

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: ## build and start the whole stack under .run/up, or what changed of it; then: . .run/env
	@deploy/local/up.sh

down: ## stop it; the data stay
	@deploy/local/down.sh

status: ## what runs, queue depths, the oldest that waits
	@deploy/local/stack.sh status .run/up; up=$$?; \
	if [ -e .run/env ]; then . .run/env && hookctl status || up=$$?; fi; exit $$up

logs: ## follow the logs of the stack under .run/up
	@tail -n 20 -F .run/up/log/*.log

demo: ## events of each type on their way to a webhook, signed and verified, one retried; leaves nothing running
	@deploy/local/demo.sh

bench: ## how fast, how fair and whether anything is lost, beside what the machine can do; ARGS="--short", "--only flood-1"
	@deploy/local/bench.sh $(ARGS)

chaos: ## kill, stop and starve every part under load, and count what is lost; ARGS="--short", "--only kill-dispatcher", "--seed 7"
	@deploy/local/chaos.sh $(ARGS)

test: ## all tests, on a PostgreSQL and a RabbitMQ of their own; ARGS="..." goes to nextest or cargo test
	@deploy/local/test.sh $(ARGS)

fmt: ## format the code
	cargo fmt --all

lint: ## formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --all-targets --features tests/fail-points -- -D warnings

doc: ## the crates' documentation, of what is private too
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items

clean-run: ## stop everything that runs under .run and remove its data
	@deploy/local/down.sh --remove
