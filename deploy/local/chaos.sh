#!/usr/bin/env bash
# make chaos: the real services in release mode on servers of their own under .run/chaos, under steady load, while parts
# are killed, stopped and starved; then the table. Arguments go to the program `chaos` (--short, --only FAULT, --seed N,
# --help). Its exit code is ours: 0 only when nothing was lost, and nothing was delivered twice that no fault explains.
#
# Logs, data and chaos.json stay until the next run; no process does, however this one ends.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"

HERE=$ROOT/deploy/local
RUN=$(own_folder "$ROOT/.run")
CHAOS=$RUN/chaos

# The program ends its services and servers itself; this is for one that was killed.
kill_servers() {
  "$HERE/postgres.sh" kill "$CHAOS/postgres" 9>&-
  "$HERE/rabbitmq.sh" kill "$CHAOS/rabbitmq" 9>&-
}

only_one "$RUN/chaos.lock" "make chaos"
"$HERE/install.sh" 9>&-
cleanup_with kill_servers
build_release
attend "$(programs_folder release)/chaos" "$@"
