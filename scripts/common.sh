# shellcheck shell=bash
# Sourced by the other scripts: where things are, and how they report.
set -euo pipefail
export LC_ALL=C.UTF-8 # numbers with a decimal point, whatever the user's language

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
build="$root/build/release"
export fovea="$build/bin/fovea"

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# build_release TARGET…: configures the release build once, and builds the targets. Ninja does only
# what is missing, and runs CMake again by itself when a CMake file changed.
build_release() {
  cd "$root"
  if [[ ! -f "$build/build.ninja" ]]; then
    cmake --preset release
  fi
  cmake --build --preset release --target "$@"
}
