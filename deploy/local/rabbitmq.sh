#!/usr/bin/env bash
# rabbitmq.sh start|stop|kill|status|url|management-url [--management] DIR, rabbitmq.sh ctl DIR COMMAND...:
# a private RabbitMQ, every file of which lies under DIR.
#
# start   until it takes connections; where it runs already, nothing happens, unless its configuration has changed since
# stop    orderly; kill: as a crash would
# status  one line; exit code 0 where it runs, 3 where not
# url     AMQP, for the user `operator`, who may do everything; there is no `guest`
# ctl     rabbitmqctl, on this broker
# --management  with the management plugin; its address is what management-url prints
#
# A broker finds its like through a name server, epmd. Usually there is one for all of the machine on port 4369, and
# whoever needs it first starts it, for good. Here each broker has its own, as a process that we started and can end.
# The server's own script is run, not Debian's wrapper in /usr/sbin, which would change the user and write to /var/log.

. "$(dirname "$0")/process.sh"

export LC_ALL=C.UTF-8
USAGE='rabbitmq.sh start|stop|kill|status|url|management-url [--management] DIR | ctl DIR COMMAND...'
SERVER_BIN=/usr/lib/rabbitmq/bin
PORTS=(amqp dist epmd management)

# All settings of the machine's own RabbitMQ, and all variables of whoever calls us, are left out.
set_environment() {
  ENVIRONMENT=(
    "PATH=$PATH" LC_ALL=C.UTF-8 "HOME=$DIR/home"
    "ERL_EPMD_PORT=$(<"$DIR/port.epmd")" ERL_EPMD_ADDRESS=127.0.0.1
    "ERL_CRASH_DUMP=$DIR/log/erl_crash.dump"
    "RABBITMQ_NODENAME=$(<"$DIR/node")@localhost"
    "RABBITMQ_CONF_ENV_FILE=$DIR/rabbitmq-env.conf"
    "RABBITMQ_CONFIG_FILE=$DIR/rabbitmq.conf"
    "RABBITMQ_CONFIG_FILES=$DIR/conf.d/*.conf"
    "RABBITMQ_ADVANCED_CONFIG_FILE=$DIR/advanced.config"
    "RABBITMQ_ENABLED_PLUGINS_FILE=$DIR/enabled_plugins"
    "RABBITMQ_MNESIA_BASE=$DIR/data"
    "RABBITMQ_LOG_BASE=$DIR/log"
    "RABBITMQ_DIST_PORT=$(<"$DIR/port.dist")"
  )
}

configuration() {
  cat <<END
listeners.tcp.local = 127.0.0.1:$(<"$DIR/port.amqp")
# Twice the largest event: larger messages are refused before they take memory.
max_message_size = 524288
raft.wal_max_size_bytes = 67108864
disk_free_limit.absolute = 100MB
log.file = rabbitmq.log
log.file.level = info
log.file.rotation.size = 20000000
log.file.rotation.count = 2
load_definitions = $DIR/definitions.json
END
  [ -z "$MANAGEMENT" ] ||
    printf '%s = %s\n' management.tcp.ip 127.0.0.1 management.tcp.port "$(<"$DIR/port.management")"
}

plugins() { printf '[rabbitmq_consistent_hash_exchange%s].\n' "${MANAGEMENT:+,rabbitmq_management}"; }

bytes_of_hex() { printf '%b' "$(sed 's/../\\x&/g')"; }

# RabbitMQ's form: base64 of a salt of four bytes and the SHA-256 of salt and password.
password_hash() {
  local salt digest
  salt=$(random_hex 4)
  digest=$({ bytes_of_hex <<<"$salt" && printf '%s' "$1"; } | sha256sum)
  bytes_of_hex <<<"$salt${digest%% *}" | base64 -w 0
}

# Read at every start, before the first client is let in. The limit in bytes lies well below what would raise the disk
# or memory alarm: at a full queue a publisher gets a nack (the queues are declared with reject-publish), at an alarm
# everybody is blocked.
definitions() {
  cat <<END
{
  "vhosts": [{"name": "/"}],
  "users": [{"name": "operator", "tags": "administrator", "password_hash": "$(<"$DIR/password.hash")",
             "hashing_algorithm": "rabbit_password_hashing_sha256"}],
  "permissions": [{"user": "operator", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
  "policies": [{"vhost": "/", "name": "vellocity-limits", "pattern": "^vellocity\\\\.", "apply-to": "queues",
                "priority": 0, "definition": {"max-length-bytes": 1073741824}}]
}
END
}

make_once() {
  (umask 077 && mkdir -p "$DIR/home" "$DIR/data" "$DIR/log" "$DIR/conf.d")
  keep "$DIR/password" random_hex 16
  keep "$DIR/password.hash" password_hash "$(<"$DIR/password")"
  keep "$DIR/node" printf 'vellocity-%s\n' "$(random_hex 4)"
  : >"$DIR/rabbitmq-env.conf"
  echo '[].' >"$DIR/advanced.config"
}

choose_ports() {
  local name taken=()
  for name in "${PORTS[@]}"; do
    # A name server that runs already holds its port rightly.
    if [ "$name" != epmd ] || gone "$DIR/epmd.pid"; then keep_port "$DIR/port.$name" "${taken[@]}"; fi
    taken+=("$(<"$DIR/port.$name")")
  done
}

a_port_was_taken() {
  local name
  for name in "${PORTS[@]}"; do
    [ "$name" != epmd ] || gone "$DIR/epmd.pid" || continue
    port_is_free "$(<"$DIR/port.$name")" || return 0
  done
  return 1
}

epmd_ready() { listens "$DIR/epmd.pid" "$(<"$DIR/port.epmd")"; }
epmd_ready_or_dead() { epmd_ready || gone "$DIR/epmd.pid"; }

start_epmd() {
  if gone "$DIR/epmd.pid"; then
    spawn "$DIR/epmd.pid" "$DIR/log/epmd.log" \
      env -i "${ENVIRONMENT[@]}" epmd -port "$(<"$DIR/port.epmd")" -address 127.0.0.1
  fi
  wait_until 20 epmd_ready_or_dead
  epmd_ready
}

# The AMQP port is opened last, after plugins and definitions.
ready() { listens "$DIR/pid" "$(<"$DIR/port.amqp")"; }
ready_or_dead() { ready || gone "$DIR/pid"; }

# One try; fails where something ended before it was ready.
try_to_start() {
  choose_ports
  write_files
  set_environment
  start_epmd || return 1
  fresh_log "$DIR/log/start.log"
  # RUNNING_UNDER_SYSTEMD makes the script become the server instead of staying as its parent.
  spawn "$DIR/pid" "$DIR/log/start.log" env -i "${ENVIRONMENT[@]}" RUNNING_UNDER_SYSTEMD=true \
    'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}' \
    "$SERVER_BIN/rabbitmq-server"
  wait_until 120 ready_or_dead || die "RabbitMQ is not ready after 120 s; see $DIR/log"
  ready
}

both_alive() { alive "$DIR/pid" >/dev/null && alive "$DIR/epmd.pid" >/dev/null; }

write_files() {
  (umask 077 && definitions >"$DIR/definitions.json")
  configuration >"$DIR/rabbitmq.conf"
  plugins >"$DIR/enabled_plugins"
}

unchanged() {
  configuration | cmp -s - "$DIR/rabbitmq.conf" && definitions | cmp -s - "$DIR/definitions.json" &&
    plugins | cmp -s - "$DIR/enabled_plugins"
}

start() {
  [ -x "$SERVER_BIN/rabbitmq-server" ] || die "RabbitMQ is not installed (deploy/local/install.sh does it)"
  make_once
  if both_alive && unchanged && wait_until 60 ready_or_dead && ready; then return 0; fi
  stop_server
  for _ in {1..5}; do
    if try_to_start; then return 0; fi
    # Somebody took a port between our look and the bind: anything else would only fail again.
    if ! a_port_was_taken; then break; fi
  done
  tail -n 20 "$DIR/log/start.log" >&2
  stop
  die "RabbitMQ did not start; see $DIR/log"
}

stop_server() { stop_process "$DIR/pid" 60 TERM KILL || die "RabbitMQ does not end"; }

# The name server last: the broker says good-bye to it.
stop() {
  stop_server
  stop_process "$DIR/epmd.pid" 10 TERM KILL || die "epmd does not end"
}

crash() {
  stop_process "$DIR/pid" 10 KILL || die "RabbitMQ does not end"
  stop_process "$DIR/epmd.pid" 10 KILL || die "epmd does not end"
}

status() {
  local pid
  if pid=$(alive "$DIR/pid"); then
    echo "RabbitMQ runs: port $(<"$DIR/port.amqp"), pid $pid, $DIR"
  else
    echo "RabbitMQ does not run: $DIR"
    return 3
  fi
}

url() {
  [ -s "$DIR/port.amqp" ] || die "no RabbitMQ was ever started in $DIR"
  printf 'amqp://operator:%s@127.0.0.1:%s/\n' "$(<"$DIR/password")" "$(<"$DIR/port.amqp")"
}

management_url() {
  grep -qs rabbitmq_management "$DIR/enabled_plugins" || die "no RabbitMQ was started with --management in $DIR"
  printf 'http://operator:%s@127.0.0.1:%s\n' "$(<"$DIR/password")" "$(<"$DIR/port.management")"
}

# Only where our name server runs: the tool would start one of its own.
ctl() {
  both_alive || die "RabbitMQ does not run: $DIR"
  set_environment
  exec env -i "${ENVIRONMENT[@]}" "$SERVER_BIN/rabbitmqctl" "$@"
}

main() {
  local command=${1:-} word
  MANAGEMENT='' DIR=''
  if [ "$command" = ctl ]; then
    [ $# -ge 3 ] || usage "$USAGE"
    DIR=$(own_folder "$2")
    ctl "${@:3}"
  fi
  for word in "${@:2}"; do
    case $word in
      --management) MANAGEMENT=1 ;;
      -* | '') usage "$USAGE" ;;
      *) DIR=$word ;;
    esac
  done
  [ -n "$DIR" ] || usage "$USAGE"
  case $command in
    start) DIR=$(own_folder "$DIR") ;;
    stop | kill | status | url | management-url) DIR=$(folder_if_there "$DIR") ;;
    *) usage "$USAGE" ;;
  esac
  case $command in
    status | url | management-url) "${command/-/_}" ;;
    start | stop | kill)
      [ -d "$DIR" ] || return 0
      only_one "$DIR/lock" "start or stop of $DIR"
      "${command/kill/crash}"
      ;;
  esac
}

main "$@"
