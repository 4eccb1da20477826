#!/usr/bin/env bash
# Runs clang-tidy over the sources given, or over all of them, with the release build's commands.
#
# Usage: scripts/tidy.sh [FILE…]
source "$(dirname "$0")/common.sh"
cd "$root"
command -v clang-tidy >/dev/null || fail "clang-tidy is missing: run scripts/install_deps.sh --dev"
[[ -f "$build/compile_commands.json" ]] || cmake --preset release
if [[ $# -gt 0 ]]; then
  printf '%s\0' "$@"
else
  # Only what the build compiles has a command to run with.
  git ls-files -z --cached --others --exclude-standard -- '*.cc' ':!examples'
fi | xargs -0 -r -n 4 -P "$(nproc)" clang-tidy --quiet -p "$build"
