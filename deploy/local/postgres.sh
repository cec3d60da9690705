#!/usr/bin/env bash
# postgres.sh start|stop|kill|status|url [--fast] DIR: a private PostgreSQL, every file of which lies under DIR.
#
# start   until it answers; where it runs already, nothing happens, unless its configuration has changed since
# stop    orderly; kill: as a crash would, and waits until all of its processes are gone
# status  one line; exit code 0 where it runs, 3 where not
# url     of the database `vellocity`, for its superuser `vellocity`
# --fast  for tests: no fsync, so a crash of the machine (not of PostgreSQL) may lose the data
#
# PostgreSQL refuses to run as root. Where we are root, it gets a user namespace in which it sees itself as `nobody`
# while its files stay root's, so it works in a folder that only root may enter; where namespaces are forbidden, it runs
# as `nobody` with the capability to pass such folders.

. "$(dirname "$0")/process.sh"

export LC_ALL=C.UTF-8
USAGE='postgres.sh start|stop|kill|status|url [--fast] DIR'
NOBODY=65534

bindir() {
  local version
  if [ -s "$DIR/data/PG_VERSION" ]; then
    version=$(<"$DIR/data/PG_VERSION")
    [ -x "/usr/lib/postgresql/$version/bin/postgres" ] ||
      die "$DIR holds data of PostgreSQL $version, which is not installed (install it, or remove $DIR to begin anew)"
  else
    version=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | cut -d / -f 5 | sort -V | tail -n 1) || true
    [ -n "$version" ] || die "PostgreSQL is not installed (deploy/local/install.sh does it)"
  fi
  printf '/usr/lib/postgresql/%s/bin\n' "$version"
}

# Chosen when the data is made, because the owner of the files depends on it.
choose_identity() {
  if [ "$(id -u)" != 0 ]; then
    echo direct
  elif unshare --user --map-user="$NOBODY" true 2>/dev/null; then
    echo namespace
  else
    echo capability
  fi
}

# Sets AS, the words to put before a command.
set_identity() {
  case $(<"$DIR/identity") in
    direct) AS=() ;;
    namespace) AS=(unshare --user --map-user="$NOBODY") ;;
    capability)
      AS=(setpriv --reuid="$NOBODY" --regid="$NOBODY" --clear-groups
        "--inh-caps=-all,+dac_override,+dac_read_search" "--ambient-caps=-all,+dac_override,+dac_read_search")
      ;;
  esac
}

# A cluster appears whole or not at all: made beside its place, with its database, and moved there.
make_data() {
  [ ! -d "$DIR/data" ] || return 0
  rm -rf "$DIR/data.new"
  choose_identity >"$DIR/identity"
  set_identity
  # Fresh data has a new password, so that the file and the server can't disagree.
  rm -f "$DIR/password"
  keep "$DIR/password" random_hex 16
  {
    "${AS[@]}" "$BIN/initdb" --pgdata="$DIR/data.new" --username=vellocity --pwfile="$DIR/password" \
      --auth=scram-sha-256 --encoding=UTF8 --locale=C ${FAST:+--no-sync} &&
      echo 'create database vellocity' |
      "${AS[@]}" "$BIN/postgres" --single -D "$DIR/data.new" ${FAST:+-F} -c dynamic_shared_memory_type=mmap postgres
  } >"$DIR/log/initdb.log" 2>&1 9>&- || {
    cat "$DIR/log/initdb.log" >&2
    die "could not make a database cluster"
  }
  mv "$DIR/data.new" "$DIR/data"
}

# mmap: shared memory in /dev/shm lies outside DIR, is 64 MB in a container, and goes when its owner logs out.
configuration() {
  cat <<END
listen_addresses = '127.0.0.1'
port = $(<"$DIR/port")
unix_socket_directories = ''
max_connections = $([ -n "$FAST" ] && echo 300 || echo 200)
shared_buffers = 128MB
dynamic_shared_memory_type = mmap
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %d '
END
  [ -z "$FAST" ] || printf '%s = off\n' fsync synchronous_commit full_page_writes
}

# Processes of this cluster that survived their postmaster: every one has the data folder as its working directory.
orphans() {
  local cwd pid
  for cwd in /proc/[0-9]*/cwd; do
    [ "$(readlink "$cwd" 2>/dev/null)" = "$DIR/data" ] || continue
    pid=${cwd%/cwd}
    pid=${pid#/proc/}
    case $(readlink "/proc/$pid/exe" 2>/dev/null) in /usr/lib/postgresql/*/bin/postgres*) echo "$pid" ;; esac
  done
}

no_orphans() { [ -z "$(orphans)" ]; }

# They end by themselves when they notice that the postmaster is dead; one that is stuck does not.
clear_orphans() {
  wait_until "${1:-10}" no_orphans && return 0
  orphans | xargs -r kill -9 2>/dev/null || true
  wait_until 10 no_orphans || die "old processes of $DIR/data do not end: $(orphans | tr '\n' ' ')"
}

ready() {
  listens "$DIR/pid" "$(<"$DIR/port")" &&
    "$BIN/pg_isready" -q -h 127.0.0.1 -p "$(<"$DIR/port")" -d vellocity -U vellocity -t 5
}
ready_or_dead() { ready || gone "$DIR/pid"; }

# One try; fails where the server ended before it was ready.
try_to_start() {
  keep_port "$DIR/port"
  configuration >"$DIR/postgresql.conf"
  # The pid in it may be another process's by now, which PostgreSQL would take for its own; ours is known to be dead.
  rm -f "$DIR/data/postmaster.pid"
  fresh_log "$DIR/log/postgres.log"
  spawn "$DIR/pid" "$DIR/log/postgres.log" \
    "${AS[@]}" "$BIN/postgres" -D "$DIR/data" -c "config_file=$DIR/postgresql.conf"
  wait_until 120 ready_or_dead || die "PostgreSQL is not ready after 120 s; see $DIR/log/postgres.log"
  ready
}

start() {
  mkdir -p "$DIR/log"
  BIN=$(bindir)
  make_data
  set_identity
  if alive "$DIR/pid" >/dev/null; then
    if configuration | cmp -s - "$DIR/postgresql.conf" && wait_until 60 ready_or_dead && ready; then return 0; fi
    stop
  fi
  clear_orphans
  for _ in {1..5}; do
    if try_to_start; then return 0; fi
    # Somebody took the port between our look and the bind: anything else would only fail again.
    if port_is_free "$(<"$DIR/port")"; then break; fi
  done
  tail -n 20 "$DIR/log/postgres.log" >&2
  die "PostgreSQL did not start"
}

# INT is the fast shutdown (TERM would wait for every client to leave), QUIT the immediate one.
stop() {
  stop_process "$DIR/pid" 60 INT QUIT KILL || die "PostgreSQL does not end"
  clear_orphans
}

crash() {
  stop_process "$DIR/pid" 10 KILL || die "PostgreSQL does not end"
  clear_orphans 0
}

status() {
  local pid
  if pid=$(alive "$DIR/pid"); then
    echo "PostgreSQL runs: port $(<"$DIR/port"), pid $pid, $DIR"
  else
    echo "PostgreSQL does not run: $DIR"
    return 3
  fi
}

url() {
  [ -s "$DIR/port" ] || die "no PostgreSQL was ever started in $DIR"
  printf 'postgres://vellocity:%s@127.0.0.1:%s/vellocity\n' "$(<"$DIR/password")" "$(<"$DIR/port")"
}

main() {
  local command=${1:-} word
  FAST='' DIR=''
  for word in "${@:2}"; do
    case $word in
      --fast) FAST=1 ;;
      -* | '') usage "$USAGE" ;;
      *) DIR=$word ;;
    esac
  done
  [ -n "$DIR" ] || usage "$USAGE"
  case $command in
    start) DIR=$(own_folder "$DIR") ;;
    stop | kill | status | url) DIR=$(folder_if_there "$DIR") ;;
    *) usage "$USAGE" ;;
  esac
  case $command in
    status | url) "$command" ;;
    start | stop | kill)
      [ -d "$DIR" ] || return 0
      only_one "$DIR/lock" "start or stop of $DIR"
      ${command/kill/crash}
      ;;
  esac
}

main "$@"
