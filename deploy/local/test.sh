#!/usr/bin/env bash
# make test: all tests, on a PostgreSQL and a RabbitMQ of their own under .run/test, which are stopped whatever happens.
# Arguments go to nextest, or to cargo test where nextest is not. Within each test, harness and tests make databases and
# vhosts of their own; servers are started here, because nextest runs each test as a process.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"

HERE=$ROOT/deploy/local
RUN=$(own_folder "$ROOT/.run")
TEST=$RUN/test
# Services that a test can stop at a named step; a release has no such steps.
FEATURES=tests/fail-points

# The data are thrown away (hundreds of databases), so nothing is gained by an orderly end. The logs stay.
kill_servers() {
  "$HERE/postgres.sh" kill "$TEST/postgres" 9>&-
  "$HERE/rabbitmq.sh" kill "$TEST/rabbitmq" 9>&-
  rm -rf "$TEST/postgres/data" "$TEST/rabbitmq/data"
}

start_servers() {
  local rabbitmq
  say "starting PostgreSQL and RabbitMQ"
  kill_servers
  rm -rf "$TEST"
  own_folder "$TEST" >/dev/null
  "$HERE/rabbitmq.sh" start --management "$TEST/rabbitmq" 9>&- &
  rabbitmq=$!
  "$HERE/postgres.sh" start --fast "$TEST/postgres" 9>&-
  wait "$rabbitmq"
  TEST_POSTGRES_URL=$("$HERE/postgres.sh" url "$TEST/postgres")
  TEST_RABBITMQ_URL=$("$HERE/rabbitmq.sh" url "$TEST/rabbitmq")
  TEST_RABBITMQ_MANAGEMENT_URL=$("$HERE/rabbitmq.sh" management-url "$TEST/rabbitmq")
  export TEST_POSTGRES_URL TEST_RABBITMQ_URL TEST_RABBITMQ_MANAGEMENT_URL
}

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
cleanup_with kill_servers
cd "$ROOT"
# Programs and tests in one go, so that both are built with the same features and nothing twice.
say "building programs and tests"
attend cargo build --workspace --bins --tests --features "$FEATURES"
start_servers
say "running the tests"
run_tests "$@"
