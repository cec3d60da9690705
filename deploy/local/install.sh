#!/usr/bin/env bash
# install.sh [tests]: sees to it that the programs of the local stack are there, from the distribution's packages:
# PostgreSQL's and RabbitMQ's, and with `tests` also the interpreters that the tests run.
#
# Only programs are wanted, no services: a temporary policy-rc.d forbids that a package starts one while it is being
# installed, and units that were not enabled before are not enabled afterwards, so that none starts at the next boot.
# What needs root runs in one child, this same script with `--as-root PACKAGE...`.

. "$(dirname "$0")/process.sh"

POLICY=/usr/sbin/policy-rc.d
POLICY_ASIDE=/usr/sbin/policy-rc.d.vellocity-aside
POLICY_MARK='written by deploy/local/install.sh of Vellocity; safe to remove'
UNITS=(postgresql.service rabbitmq-server.service epmd.service epmd.socket)

missing_packages() {
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || echo rabbitmq-server
  [ "${1:-}" = tests ] || return 0
  command -v php >/dev/null || echo php-cli
  command -v node >/dev/null || echo nodejs
  command -v python3 >/dev/null || echo python3
}

policy_left_over() { grep -qsF "$POLICY_MARK" "$POLICY" || [ -e "$POLICY_ASIDE" ]; }

# A run that was killed may have left our policy in place: what it had put aside is the original.
take_policy_away() {
  if grep -qsF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi
  if [ -e "$POLICY_ASIDE" ] || [ -L "$POLICY_ASIDE" ]; then mv -f "$POLICY_ASIDE" "$POLICY"; fi
}

forbid_services() {
  take_policy_away
  if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then mv -f "$POLICY" "$POLICY_ASIDE"; fi
  printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
  chmod 755 "$POLICY"
}

enabled_units() {
  local unit
  command -v systemctl >/dev/null || return 0
  for unit in "${UNITS[@]}"; do
    if systemctl is-enabled --quiet "$unit" 2>/dev/null; then echo "$unit"; fi
  done
}

disable_new_units() {
  local unit
  for unit in $(enabled_units); do
    case " $1 " in *" $unit "*) continue ;; esac
    systemctl disable --quiet "$unit" >/dev/null 2>&1 || say "could not disable $unit: it may start at the next boot"
  done
}

# apt-get waits by itself for dpkg's lock, but not for the one on the package lists.
update_lists() {
  local try
  for try in {1..30}; do
    apt-get update -q && return 0
    [ "$try" -lt 30 ] && flock -n /var/lib/apt/lists/lock true && break
    sleep 2
  done
  say "apt-get update failed; trying with the package lists that are here"
}

install_as_root() {
  local enabled_before
  exec 9>>/run/lock/vellocity-install.lock
  flock 9
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8
  enabled_before=$(enabled_units | tr '\n' ' ')
  trap take_policy_away EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  [ $# -gt 0 ] || return 0
  forbid_services
  # The lock's descriptor is not handed down: a process that a package leaves behind would keep it.
  update_lists </dev/null 9>&-
  apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null 9>&-
  disable_new_units "$enabled_before"
}

# Prints nothing and succeeds where we are root; otherwise the sudo to use, which may ask at a terminal only.
how_to_be_root() {
  [ "$(id -u)" != 0 ] || return 0
  command -v sudo >/dev/null || return 1
  if sudo -n true 2>/dev/null; then echo 'sudo -n'; elif [ -t 0 ] && [ -t 2 ]; then echo sudo; else return 1; fi
}

# shellcheck disable=SC2086 # `sudo -n` is two words
run_as_root() { $become bash "$0" --as-root "$@" >&2; }

main() {
  local packages become
  mapfile -t packages < <(missing_packages "${1:-}")
  if [ "${#packages[@]}" = 0 ]; then
    if policy_left_over && become=$(how_to_be_root); then run_as_root; fi
    return 0
  fi
  command -v apt-get >/dev/null || die "please install ${packages[*]}: there is no apt-get here to do it with"
  become=$(how_to_be_root) ||
    die "please install ${packages[*]}, as root: apt-get install --no-install-recommends ${packages[*]}"
  say "installing ${packages[*]} (programs only, no service is started)"
  run_as_root "${packages[@]}" || die "could not install ${packages[*]}"
  mapfile -t packages < <(missing_packages "${1:-}")
  [ "${#packages[@]}" = 0 ] || die "${packages[*]} still missing after the installation"
  say "installed"
}

case ${1:-} in
  '' | tests) main "$@" ;;
  --as-root)
    shift
    install_as_root "$@"
    ;;
  *) usage "install.sh [tests]" ;;
esac
