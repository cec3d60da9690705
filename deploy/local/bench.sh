#!/usr/bin/env bash
# make bench: the benchmark, on a PostgreSQL and a RabbitMQ of its own under .run/bench, which are stopped whatever
# happens. Arguments go to the program `bench` (--short, --only NAME, --pairs N). The exit code is the benchmark's.
#
# PostgreSQL keeps its defaults for durability: a commit waits for the disk, as it would where it counts.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"
. "$(dirname "$0")/servers.sh"

HERE=$ROOT/deploy/local
RUN=$(own_folder "$ROOT/.run")
BENCH=$RUN/bench

stop_servers() { kill_servers "$BENCH"; }

only_one "$RUN/bench.lock" "make bench"
"$HERE/install.sh" 9>&-
build_release
cleanup_with stop_servers
start_servers "$BENCH"
export BENCH_FOLDER=$BENCH BENCH_REPORT=$RUN/bench.json
attend "$(programs_folder release)/bench" "$@"
