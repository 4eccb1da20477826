#!/usr/bin/env bash
# Runs clang-tidy over the sources given, or over all of them, with the release build's commands.
# A warning is an error.
#
# Usage: scripts/tidy.sh [--part K/N | FILE…]
#   --part  every N-th source of the libraries and the program, from the K-th on
source "$(dirname "$0")/common.sh"
cd "$root"
# Of names that end in a zero byte: those that this build compiles, which have a command to run with.
compiled() {
  local file
  while IFS= read -r -d '' file; do
    if grep -qF "/$file\"" "$build/compile_commands.json"; then printf '%s\0' "$file"; fi
  done
}
command -v clang-tidy >/dev/null || fail "clang-tidy is missing: run scripts/install_deps.sh --dev"
[[ -f "$build/compile_commands.json" ]] || cmake --preset release
if [[ "${1:-}" == --part ]]; then
  [[ "${2:-}" =~ ^([0-9]+)/([0-9]+)$ ]] || fail "--part ${2:-}: want K/N, say 3/12"
  list_sources '*.cc' | compiled | awk -v RS='\0' -v ORS='\0' -v k="${BASH_REMATCH[1]}" -v n="${BASH_REMATCH[2]}" \
    '!/^(bench|examples|tests)\// && i++ % n == k % n'
elif [[ $# -gt 0 ]]; then
  printf '%s\0' "$@"
else
  list_sources '*.cc' | compiled | awk -v RS='\0' -v ORS='\0' '!/^examples\//'
fi | xargs -0 -r -n 4 -P "$(nproc)" clang-tidy --quiet --warnings-as-errors='*' \
  --extra-arg=-Wno-unknown-warning-option -p "$build"
