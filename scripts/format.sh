#!/usr/bin/env bash
# Checks that the sources are formatted as .clang-format says; --fix formats them.
source "$(dirname "$0")/common.sh"
cd "$root"
command -v clang-format >/dev/null || fail "clang-format is missing: run scripts/install_deps.sh --dev"
mode=(--dry-run --Werror)
case "${1:-}" in
  --fix) mode=(-i) ;;
  "") ;;
  *) fail "unknown option $1: want --fix or nothing" ;;
esac
list_sources '*.cc' '*.h' '*.cu' '*.cuh' |
  xargs -0 -r clang-format --style=file "${mode[@]}"
