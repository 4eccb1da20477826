#!/usr/bin/env bash
# Installs, builds and runs every test; the last line is "N passed, N failed".
#
# Usage: scripts/test.sh [CTEST_OPTION…]     for example: scripts/test.sh -R documents
#
# FOVEA_TEST_SECONDS (default 1200) bounds the tests: what hangs is ended and counts as failed.
source "$(dirname "$0")/common.sh"

say "Packages"
"$root/scripts/install_deps.sh"

say "Build"
build_release all

say "Default model"
# Without it most tests still run; the run as a whole has failed.
failed_steps=()
"$fovea" model pull smollm2 --quiet || failed_steps+=("fovea model pull smollm2")

say "Tests"
junit="$build/test-results/ctest.xml"
results="$build/test-results/googletest"
rm -rf "$build/test-results"
mkdir -p "$results"
# GoogleTest binaries write one report each, so that single cases are counted.
GTEST_OUTPUT="json:$results/" timeout --foreground --signal=INT --kill-after=30 \
  "${FOVEA_TEST_SECONDS:-1200}" \
  ctest --test-dir "$build" --parallel "$(nproc)" --output-junit "$junit" \
  --test-output-size-failed 100000 "$@" || true
python3 "$root/scripts/count_tests.py" "$junit" "$results" "${failed_steps[@]}"
