#!/usr/bin/env bash
# Building the programs: sourced by the scripts that need them.
#
# Always all programs of the workspace together: cargo chooses the features of shared dependencies by what is built, so
# another selection would be another build of the same services, and `make up` would restart what did not change.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

check_compilers() {
  command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs), then run this again"
  command -v cc >/dev/null || die "a C compiler (cc) is missing: apt-get install gcc libc6-dev"
  # A progress bar in a log that nobody watches is thousands of lines.
  if [ "${CI:-}" = true ]; then export CARGO_TERM_PROGRESS_WHEN=never CARGO_TERM_COLOR=never; fi
}

# programs_folder PROFILE: where cargo puts the programs, wherever the target folder is. PROFILE is release or debug.
programs_folder() {
  local target
  target=$(cd "$ROOT" && cargo metadata --no-deps --format-version 1 |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  [ -n "$target" ] || die "cargo did not say where its target folder is"
  printf '%s/%s\n' "$target" "$1"
}

# build_release: what up, demo, bench and chaos run.
build_release() {
  check_compilers
  say "building (the first time takes some minutes)"
  # Not in a subshell, which would have no traps and leave cargo running after a Ctrl-C.
  cd "$ROOT" || die "cannot enter $ROOT"
  attend cargo build --release --workspace --bins || die "the build failed"
  say "built"
}
