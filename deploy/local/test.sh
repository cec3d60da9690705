#!/usr/bin/env bash
# make test: all tests, on a PostgreSQL and a RabbitMQ of their own under .run/test, which are stopped whatever happens.
# Arguments go to nextest, or to cargo test where nextest is not. Within each test, harness and tests make databases and
# vhosts of their own; servers are started here, because nextest runs each test as a process.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"
. "$(dirname "$0")/servers.sh"

HERE=$ROOT/deploy/local
RUN=$(own_folder "$ROOT/.run")
TEST=$RUN/test
# Services that a test can stop at a named step; a release has no such steps.
FEATURES=tests/fail-points

stop_servers() { kill_servers "$TEST"; }

run_tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    attend cargo nextest run --workspace --features "$FEATURES" "$@"
  else
    attend cargo test --workspace --features "$FEATURES" "$@"
  fi
}

only_one "$RUN/test.lock" "make test"
"$HERE/install.sh" tests 9>&-
check_compilers
cleanup_with stop_servers
cd "$ROOT"
# Programs and tests in one go, so that both are built with the same features and nothing twice.
say "building programs and tests"
attend cargo build --workspace --bins --tests --features "$FEATURES"
start_servers "$TEST" --fast
say "running the tests"
run_tests "$@"
