#!/usr/bin/env bash
# A PostgreSQL and a RabbitMQ for one run of tests or of the benchmark, whose data are thrown away: sourced by the scripts
# that need them, after process.sh, with HERE set to the folder of the scripts.

# kill_servers DIR: nothing is gained by an orderly end. The logs stay.
kill_servers() {
  "$HERE/postgres.sh" kill "$1/postgres" 9>&-
  "$HERE/rabbitmq.sh" kill "$1/rabbitmq" 9>&-
  rm -rf "$1/postgres/data" "$1/rabbitmq/data"
}

# start_servers DIR [OPTION...]: with fresh data under DIR, the options for postgres.sh. Where they are stands in
# TEST_POSTGRES_URL, TEST_RABBITMQ_URL and TEST_RABBITMQ_MANAGEMENT_URL then.
start_servers() {
  local dir=$1 rabbitmq
  shift
  say "starting PostgreSQL and RabbitMQ"
  kill_servers "$dir"
  rm -rf "$dir"
  own_folder "$dir" >/dev/null
  "$HERE/rabbitmq.sh" start --management "$dir/rabbitmq" 9>&- &
  rabbitmq=$!
  "$HERE/postgres.sh" start "$@" "$dir/postgres" 9>&-
  wait "$rabbitmq"
  TEST_POSTGRES_URL=$("$HERE/postgres.sh" url "$dir/postgres")
  TEST_RABBITMQ_URL=$("$HERE/rabbitmq.sh" url "$dir/rabbitmq")
  TEST_RABBITMQ_MANAGEMENT_URL=$("$HERE/rabbitmq.sh" management-url "$dir/rabbitmq")
  export TEST_POSTGRES_URL TEST_RABBITMQ_URL TEST_RABBITMQ_MANAGEMENT_URL
}
