#!/usr/bin/env bash
# make down: stops what make up started; its data stay. With `--remove` (make clean-run) everything that any target left
# under .run is stopped, and .run removed.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"

HERE=$ROOT/deploy/local
RUN=$ROOT/.run

# Servers that a killed `make test`, `bench` or `chaos` left behind have no services beside them.
stop_everything() {
  local stack
  for stack in up demo; do
    "$HERE/stack.sh" stop "$RUN/$stack"
  done
  for stack in test bench chaos; do
    "$HERE/postgres.sh" kill "$RUN/$stack/postgres"
    "$HERE/rabbitmq.sh" kill "$RUN/$stack/rabbitmq"
  done
}

case ${1:-} in
  '' | --remove) ;;
  *) usage "down.sh [--remove]" ;;
esac
[ -d "$RUN" ] || exit 0
own_folder "$RUN" >/dev/null
only_one "$RUN/up.lock" "make up or make down"
if [ "${1:-}" = --remove ]; then
  stop_everything
  rm -rf "$RUN"
  say "everything is stopped, and .run removed"
else
  "$HERE/stack.sh" stop "$RUN/up"
  say "everything is stopped"
fi
