#!/usr/bin/env bash
# Processes, their pid files, ports and locks: sourced by every script of this folder.
#
# A pid alone says little: after a reboot, or after some weeks, another process has it, and a process that has died may
# stay behind as a zombie for which `kill -0` still succeeds. So a pid file here holds two words, the pid and the
# moment at which that process started (field 22 of /proc/PID/stat, plus the boot's id), and a zombie is dead.
# Nothing but bash, coreutils, util-linux, grep, sed and find is used: a fresh machine has neither `ps` nor `ss` nor `curl`.

set -euo pipefail

BEGUN_S=${BEGUN_S:-$EPOCHSECONDS}
export BEGUN_S

say() { printf '[%3ds] %s\n' "$((EPOCHSECONDS - BEGUN_S))" "$*" >&2; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}
usage() {
  printf 'usage: %s\n' "$*" >&2
  exit 64
}

# Prints `STATE STARTED` of a process; fails where there is none. The second field of the file, the program's name,
# may hold spaces and parentheses, so everything up to the last `)` is cut off.
process_stat() {
  local stat fields
  { read -r -d '' stat <"/proc/$1/stat" || [ -n "${stat:-}" ]; } 2>/dev/null || return 1
  read -r -a fields <<<"${stat##*)}"
  printf '%s %s\n' "${fields[0]}" "${fields[19]}"
}

# The start time counts from boot, and a machine that boots in a steady rhythm may give the same pid at the same tick.
boot_id() { cat /proc/sys/kernel/random/boot_id; }

# process_identity PID: prints what a pid file holds, if the process is alive.
process_identity() {
  local state started
  read -r state started < <(process_stat "$1") || return 1
  case $state in Z | X) return 1 ;; esac
  printf '%s %s@%s\n' "$1" "$started" "$(boot_id)"
}

# alive FILE: prints the pid in a pid file whose process lives and is the one that was written down.
alive() {
  local pid identity now
  [ -s "$1" ] && read -r pid identity <"$1" || return 1
  now=$(process_identity "$pid") || return 1
  [ "$now" = "$pid $identity" ] || return 1
  printf '%s\n' "$pid"
}

# remember_process FILE PID: by rename, so that no reader meets half a line.
remember_process() {
  process_identity "$2" >"$1.new" || {
    rm -f "$1.new"
    return 1
  }
  mv -f "$1.new" "$1"
}

# signal FILE SIGNAL: to the process in the pid file, if it is still that one.
signal() {
  local pid
  pid=$(alive "$1") || return 0
  kill -"$2" "$pid" 2>/dev/null || true
}

# wait_until SECONDS COMMAND...: until the command succeeds; fails when the time is over.
wait_until() {
  local until_s=$((EPOCHSECONDS + $1))
  shift
  until "$@"; do
    [ "$EPOCHSECONDS" -lt "$until_s" ] || return 1
    sleep 0.05
  done
}

gone() { ! alive "$1" >/dev/null; }

# await_end FILE SECONDS: fails where the process does not end in time. The pid file goes after it, never before.
await_end() {
  wait_until "$2" gone "$1" || return 1
  rm -f "$1"
}

# stop_process FILE SECONDS SIGNAL...: one signal after the other, each with that much time. Fails where the last one
# did not end it.
stop_process() {
  local file=$1 seconds=$2 name
  shift 2
  for name in "$@"; do
    signal "$file" "$name"
    if await_end "$file" "$seconds"; then return 0; fi
  done
  return 1
}

# spawn PIDFILE LOG COMMAND...: starts a process that outlives this script and the terminal (a session of its own), and
# writes down who it is. The pid stays the same from the subshell through `setsid` to the program.
spawn() {
  local file=$1 log=$2
  shift 2
  rm -f "$file"
  (
    remember_process "$file" "$BASHPID"
    raise_open_files
    exec setsid "$@"
  ) </dev/null >>"$log" 2>&1 9>&- &
  wait_until 10 test -s "$file"
}

# Not to the hard limit, which may be a billion: Erlang programs make tables of that size.
raise_open_files() {
  local hard
  hard=$(ulimit -Hn)
  [ "$hard" != unlimited ] && [ "$hard" -lt 65536 ] || hard=65536
  ulimit -Sn "$hard" 2>/dev/null || true
}

# fresh_log FILE: puts a log aside that has grown; one old one is kept.
fresh_log() {
  [ ! -f "$1" ] || [ "$(stat -c %s "$1")" -lt 20000000 ] || mv -f "$1" "$1.old"
}

# Listening sockets of both families, `PORT INODE` a line, from the kernel's own table: unlike a trial connection it
# leaves no line in anybody's log. 0A is LISTEN.
listening_sockets() {
  local fields
  { grep -hs ' 0A ' /proc/net/tcp /proc/net/tcp6 || true; } | while read -r -a fields; do
    [ "${fields[3]}" != 0A ] || printf '%d %s\n' "0x${fields[1]##*:}" "${fields[9]}"
  done
}

# listens PIDFILE PORT: that very process listens there, and not somebody who was quicker.
listens() {
  local pid port inode
  pid=$(alive "$1") || return 1
  while read -r port inode; do
    [ "$port" = "$2" ] || continue
    [ -z "$(find "/proc/$pid/fd" -lname "socket:\[$inode\]" 2>/dev/null)" ] || return 0
  done < <(listening_sockets)
  return 1
}

# Not through a pipe: `grep -q` leaves early, and with pipefail the writer's broken pipe would count as "not found".
port_is_free() { ! grep -q "^$1 " <<<"$(listening_sockets)"; }

# free_port TAKEN...: a port below the ephemeral range (where any client's connection may sit) that nobody listens on,
# and that is not among the arguments. It may be taken a moment later: whoever binds it must be ready to ask again.
free_port() {
  local port taken
  taken=" $(listening_sockets | cut -d ' ' -f 1 | tr '\n' ' ') $* "
  for _ in {1..1000}; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    case $taken in *" $port "*) continue ;; esac
    printf '%s\n' "$port"
    return 0
  done
  die "found no free port"
}

# keep_port FILE TAKEN...: the port in the file if nobody listens there, so that a restart keeps it; else a new one.
keep_port() {
  local file=$1 port
  shift
  if [ -s "$file" ] && port_is_free "$(<"$file")"; then return 0; fi
  port=$(free_port "$@") || return 1
  printf '%s\n' "$port" >"$file"
}

# random_hex BYTES: from the system's random source.
random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# keep FILE COMMAND...: writes the command's output into a file that only its owner can read, once and for all: a file
# that is there stays as it is.
keep() {
  local file=$1
  shift
  [ ! -s "$file" ] || return 0
  (umask 077 && "$@" >"$file.new")
  mv -f "$file.new" "$file"
}

# own_folder DIR: makes the folder, which only its owner may look into, and prints its real, absolute path.
own_folder() {
  (umask 077 && mkdir -p "$1")
  [ -O "$1" ] || die "$1 belongs to $(stat -c %U "$1"): run this as that user, or remove the folder"
  (cd "$1" && pwd -P)
}

# folder_if_there DIR: its real path, or the name as it is.
folder_if_there() {
  if [ -d "$1" ]; then own_folder "$1"; else printf '%s\n' "$1"; fi
}

# only_one FILE NAME: holds a lock on FILE until this script ends; waits for whoever has it, and says so.
# Background processes must be started with 9>&-, or the lock would live as long as they do.
only_one() {
  exec 9>>"$1"
  flock -n 9 && return 0
  say "another $2 is at work here; waiting for it"
  flock 9
}

# attend COMMAND...: runs a command in a process group of its own and waits for it. Bash puts off traps while a
# foreground command runs; like this a signal to the script is acted on at once, and all that the command started can be
# ended too.
ATTENDED=''
attend() {
  local code=0
  set -m
  "$@" </dev/null 9>&- &
  ATTENDED=$!
  set +m
  wait "$ATTENDED" || code=$?
  ATTENDED=''
  return "$code"
}

attended_gone() { ! kill -0 -- "-$ATTENDED" 2>/dev/null; }

end_attended() {
  [ -n "$ATTENDED" ] || return 0
  kill -TERM -- "-$ATTENDED" 2>/dev/null || true
  wait_until 15 attended_gone || kill -KILL -- "-$ATTENDED" 2>/dev/null || true
  wait "$ATTENDED" 2>/dev/null || true
  ATTENDED=''
}

# cleanup_with COMMAND: runs it when the script ends, however it ends, and not twice, and not half because of a second
# Ctrl-C. The exit code stays.
cleanup_with() {
  # shellcheck disable=SC2064 # the command's name is meant now
  trap "leave $1" EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

leave() {
  local code=$?
  trap '' HUP INT TERM
  trap - EXIT
  set +e
  end_attended
  "$1"
  exit "$code"
}
