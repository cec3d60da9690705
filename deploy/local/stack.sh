#!/usr/bin/env bash
# stack.sh start|stop|status|env DIR: PostgreSQL, RabbitMQ and the three services, with all they write under DIR.
#
# start   until every service is ready. What runs already is left alone, unless its program or its configuration has
#         changed. The programs must have been built (build.sh). VELLOCITY__SECTION__KEY in the caller's environment
#         reaches the services, so that demo, bench and chaos can set what they need.
# stop    the services first, with the time to finish what they are at, then the servers
# status  a line for each part; exit code 0 where all run, 3 where not
# env     what .run/env is made of: lines for a shell
#
# Below DIR: postgres/ and rabbitmq/ (see their scripts), log/, secrets.key, and for each service NAME.pid,
# NAME.start (what it was started with) and its ports.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"

USAGE='stack.sh start|stop|status|env DIR'
HERE=$ROOT/deploy/local
SERVICES=(management-api dispatcher retry)
READY_S_MAX=60
# More than the services allow themselves for finishing: they wait for requests that are under way.
STOP_S_MAX=60

start_servers() {
  local postgres rabbitmq failed=''
  say "starting PostgreSQL and RabbitMQ"
  "$HERE/postgres.sh" start "$DIR/postgres" 9>&- &
  postgres=$!
  "$HERE/rabbitmq.sh" start "$DIR/rabbitmq" 9>&- &
  rabbitmq=$!
  wait "$postgres" || failed+=' PostgreSQL'
  wait "$rabbitmq" || failed+=' RabbitMQ'
  [ -z "$failed" ] || die "not started:$failed"
  POSTGRES_URL=$("$HERE/postgres.sh" url "$DIR/postgres")
  RABBITMQ_URL=$("$HERE/rabbitmq.sh" url "$DIR/rabbitmq")
}

# Everything that the local stack sets; all else is the services' defaults, or the caller's wish.
settings() {
  cat <<END
VELLOCITY__POSTGRES__URL=$POSTGRES_URL
VELLOCITY__RABBITMQ__URL=$RABBITMQ_URL
VELLOCITY__SECRETS__KEYS__LOCAL=$(<"$DIR/secrets.key")
VELLOCITY__SECRETS__ACTIVE_KEY=local
VELLOCITY__NETWORK__ALLOW_HTTP=true
VELLOCITY__NETWORK__ALLOWED_NETWORKS=127.0.0.0/8,::1/128
VELLOCITY__TELEMETRY__LOG_FORMAT=human
NO_COLOR=1
END
}

service_settings() {
  settings
  echo "VELLOCITY__ADMIN__ADDRESS=127.0.0.1:$(<"$DIR/port.$1-admin")"
  [ "$1" != management-api ] || echo "VELLOCITY__API__ADDRESS=127.0.0.1:$(<"$DIR/port.api")"
}

# With `export` in a subshell, not with `env NAME=VALUE program`: the command line of a process is for all to read.
with_settings() {
  local settings=$1 line
  shift
  while read -r line; do export "${line?}"; done <<<"$settings"
  "$@"
}

ports_of() {
  echo "$1-admin"
  [ "$1" != management-api ] || echo api
}

choose_ports() {
  local name file taken=()
  for file in "$DIR"/port.*; do
    [ ! -s "$file" ] || taken+=("$(<"$file")")
  done
  for name in $(ports_of "$1"); do keep_port "$DIR/port.$name" "${taken[@]}"; done
}

a_port_was_taken() {
  local name
  for name in $(ports_of "$1"); do port_is_free "$(<"$DIR/port.$name")" || return 0; done
  return 1
}

# What a service is started with, as a digest: its program and every setting that reaches it.
digest_of() {
  {
    sha256sum <"$PROGRAMS/$1"
    service_settings "$1"
    env | grep '^VELLOCITY__' | sort || true
    [ -z "${VELLOCITY_CONFIG:-}" ] || cat "$VELLOCITY_CONFIG"
  } | sha256sum
}

migrate() {
  say "bringing the database's schema up to date"
  (with_settings "$(settings)" "$PROGRAMS/management-api" migrate) >"$DIR/log/migrate.log" 2>&1 9>&- || {
    cat "$DIR/log/migrate.log" >&2
    die "the migration failed"
  }
}

start_service() {
  local name=$1
  if alive "$DIR/$name.pid" >/dev/null; then
    if [ "$(digest_of "$name")" = "$(cat "$DIR/$name.start" 2>/dev/null)" ]; then return 0; fi
    say "$name has changed: starting it anew"
    stop_services "$name"
  else
    say "starting $name"
  fi
  choose_ports "$name"
  digest_of "$name" >"$DIR/$name.start"
  fresh_log "$DIR/log/$name.log"
  (with_settings "$(service_settings "$name")" spawn "$DIR/$name.pid" "$DIR/log/$name.log" "$PROGRAMS/$name")
}

# One GET of the probe: fails unless the service itself answers with a 200. The subshell closes the connection.
says_ready() (
  listens "$DIR/$1.pid" "$(<"$DIR/port.$1-admin")" || exit 1
  exec 3<>"/dev/tcp/127.0.0.1/$(<"$DIR/port.$1-admin")" || exit 1
  printf 'GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
  read -r -t 5 -u 3 _ code _ && [ "$code" = 200 ]
) 2>/dev/null

ready_or_dead() { says_ready "$1" || gone "$DIR/$1.pid"; }

await_service() {
  local name=$1
  for _ in {1..5}; do
    wait_until "$READY_S_MAX" ready_or_dead "$name" ||
      die "$name runs but is not ready after $READY_S_MAX s; see $DIR/log/$name.log"
    if alive "$DIR/$name.pid" >/dev/null; then return 0; fi
    # Somebody took the port between our look and the bind: anything else would only fail again.
    a_port_was_taken "$name" || break
    start_service "$name"
  done
  tail -n 20 "$DIR/log/$name.log" >&2
  die "$name ended by itself; see $DIR/log/$name.log"
}

start() {
  local name
  mkdir -p "$DIR/log"
  PROGRAMS=$(programs_folder release)
  keep "$DIR/secrets.key" random_hex 32
  start_servers
  migrate
  for name in "${SERVICES[@]}"; do start_service "$name"; done
  for name in "${SERVICES[@]}"; do await_service "$name"; done
  say "every service is ready"
}

# stop_services NAME...: all at the same time.
stop_services() {
  local name
  for name in "$@"; do signal "$DIR/$name.pid" TERM; done
  for name in "$@"; do await_end_of "$name"; done
}

await_end_of() {
  if await_end "$DIR/$1.pid" "$STOP_S_MAX"; then return 0; fi
  say "$1 did not end within $STOP_S_MAX s of SIGTERM: killing it (see $DIR/log/$1.log)"
  stop_process "$DIR/$1.pid" 10 KILL || die "$1 does not end"
}

stop() {
  local name servers=()
  stop_services "${SERVICES[@]}"
  "$HERE/postgres.sh" stop "$DIR/postgres" 9>&- &
  servers+=($!)
  "$HERE/rabbitmq.sh" stop "$DIR/rabbitmq" 9>&- &
  servers+=($!)
  for name in "${servers[@]}"; do wait "$name" || die "could not stop a server"; done
}

status() {
  local name pid code=0
  "$HERE/postgres.sh" status "$DIR/postgres" || code=3
  "$HERE/rabbitmq.sh" status "$DIR/rabbitmq" || code=3
  for name in "${SERVICES[@]}"; do
    if pid=$(alive "$DIR/$name.pid"); then
      echo "$name runs$(says_ready "$name" || echo ', not ready'): pid $pid, $DIR/log/$name.log"
    else
      echo "$name does not run"
      code=3
    fi
  done
  return "$code"
}

quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

print_env() {
  PROGRAMS=$(programs_folder release)
  [ -s "$DIR/port.api" ] || die "no stack was ever started in $DIR"
  echo "# Written by make; to be sourced: . .run/env"
  echo "export VELLOCITY_API_URL=$(quoted "http://127.0.0.1:$(<"$DIR/port.api")")"
  # `%2f` is the vhost `/`: with a bare slash at the end some clients ask for a vhost without a name.
  echo "export VELLOCITY_AMQP_URL=$(quoted "$("$HERE/rabbitmq.sh" url "$DIR/rabbitmq")%2f")"
  echo "export VELLOCITY_DATABASE_URL=$(quoted "$("$HERE/postgres.sh" url "$DIR/postgres")")"
  echo "export PATH=$(quoted "$PROGRAMS"):\"\$PATH\""
}

main() {
  [ $# = 2 ] || usage "$USAGE"
  case $1 in
    start)
      DIR=$(own_folder "$2")
      only_one "$DIR/lock" "start or stop of $DIR"
      start
      ;;
    stop)
      [ -d "$2" ] || return 0
      DIR=$(own_folder "$2")
      only_one "$DIR/lock" "start or stop of $DIR"
      stop
      ;;
    status | env)
      DIR=$(folder_if_there "$2")
      ${1/env/print_env}
      ;;
    *) usage "$USAGE" ;;
  esac
}

main "$@"
