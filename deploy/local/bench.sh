#!/usr/bin/env bash
# make bench: the benchmark, on a PostgreSQL and a RabbitMQ of its own under .run/bench, which are stopped whatever
# happens. Arguments go to the program `bench` (--short, --only NAME, --pairs N). The exit code is the benchmark's.
#
# PostgreSQL keeps its defaults for durability: a commit waits for the disk, as it would where it counts.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"

HERE=$ROOT/deploy/local
RUN=$(own_folder "$ROOT/.run")
BENCH=$RUN/bench

kill_servers() {
  "$HERE/postgres.sh" kill "$BENCH/postgres" 9>&-
  "$HERE/rabbitmq.sh" kill "$BENCH/rabbitmq" 9>&-
  rm -rf "$BENCH/postgres/data" "$BENCH/rabbitmq/data"
}

start_servers() {
  local rabbitmq
  say "starting PostgreSQL and RabbitMQ"
  kill_servers
  rm -rf "$BENCH"
  own_folder "$BENCH" >/dev/null
  "$HERE/rabbitmq.sh" start --management "$BENCH/rabbitmq" 9>&- &
  rabbitmq=$!
  "$HERE/postgres.sh" start "$BENCH/postgres" 9>&-
  wait "$rabbitmq"
  TEST_POSTGRES_URL=$("$HERE/postgres.sh" url "$BENCH/postgres")
  TEST_RABBITMQ_URL=$("$HERE/rabbitmq.sh" url "$BENCH/rabbitmq")
  TEST_RABBITMQ_MANAGEMENT_URL=$("$HERE/rabbitmq.sh" management-url "$BENCH/rabbitmq")
  export TEST_POSTGRES_URL TEST_RABBITMQ_URL TEST_RABBITMQ_MANAGEMENT_URL
}

only_one "$RUN/bench.lock" "make bench"
"$HERE/install.sh" 9>&-
build_release
cleanup_with kill_servers
start_servers
export BENCH_FOLDER=$BENCH BENCH_REPORT=$RUN/bench.json
attend "$(programs_folder release)/bench" "$@"
