#!/usr/bin/env bash
# make up: the whole stack under .run/up, left running; .run/env tells people and scripts where it is. Run again it
# builds, and starts anew what changed or died.

. "$(dirname "$0")/process.sh"
. "$(dirname "$0")/build.sh"

RUN=$(own_folder "$ROOT/.run")

summary() {
  # shellcheck disable=SC1091 # written by the line before
  . "$RUN/env"
  cat <<END

Vellocity is up.

  REST API    $VELLOCITY_API_URL/api/v1
  logs        .run/up/log/ (make logs)
  data        .run/up/, kept by make down; make clean-run removes it

Next:

  . .run/env
  hookctl partner create --name Acme --plan Starter
  curl -X POST "\$VELLOCITY_API_URL/api/v1/partners/webhooks" -H "Authorization: Bearer API_KEY" \\
    -H "Content-Type: application/json" -d '{"url": "http://127.0.0.1:9000/hook", "events": ["listing.updated"]}'
  hookctl publish listing.updated --partner 1 --data '{"listing_id": 123}' --wait 10s

END
}

only_one "$RUN/up.lock" "make up or make down"
"$ROOT/deploy/local/install.sh" 9>&-
cleanup_with :
build_release
attend "$ROOT/deploy/local/stack.sh" start "$RUN/up"
(umask 077 && "$ROOT/deploy/local/stack.sh" env "$RUN/up" >"$RUN/env.new")
mv -f "$RUN/env.new" "$RUN/env"
summary
