#!/usr/bin/env bash
# make demo: a stack of its own under .run/demo, with fresh data and a retry schedule of seconds; runs the program
# `demo` against it, and stops all of it again, whatever happens. The exit code is the demo's.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"

HERE=$ROOT/deploy/local
RUN=$(own_folder "$ROOT/.run")
DEMO=$RUN/demo

stop_stack() {
  [ -d "$DEMO" ] || return 0
  say "stopping what was started"
  "$HERE/stack.sh" stop "$DEMO" 9>&-
}

only_one "$RUN/demo.lock" "make demo"
"$HERE/install.sh" 9>&-
cleanup_with stop_stack
build_release
# A run that was killed may have left processes.
"$HERE/stack.sh" stop "$DEMO" 9>&-
rm -rf "$DEMO"
export VELLOCITY__RETRY_POLICY__SCHEDULE_S=1,2,3
attend "$HERE/stack.sh" start "$DEMO"
"$HERE/stack.sh" env "$DEMO" >"$DEMO/env"
# shellcheck disable=SC1091 # written by the line before
. "$DEMO/env"
attend "$(programs_folder release)/demo"
