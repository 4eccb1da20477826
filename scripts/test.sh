#!/usr/bin/env bash
# Installs, builds and runs every test; the last line is "N passed, N failed".
#
# Usage: scripts/test.sh [--checks | --gpu | --train] [CTEST_OPTION…]     for example: scripts/test.sh -R documents
#   --checks  what CI does beside: the format, what reads bytes of strangers under the sanitizers, and
#             what clang-tidy says of a part of the sources (another part for each state of them)
#   --gpu     instead, the tests of all ops, of searches and of FAISS's indexes on the GPU, with a build for it
#             (preset cuda-release)
#   --train   instead, the tests of training, with LibTorch from the PyPI package torch, in a virtual
#             environment under build/ (3 GB)
#
# FOVEA_TEST_SECONDS (default 1200) bounds the tests: what hangs is ended and counts as failed.
source "$(dirname "$0")/common.sh"

case "${1:-}" in -h | --help) usage && exit ;; esac
checks=()
if [[ "${1:-}" == --checks ]]; then
  checks=(--dev)
  shift
fi
failed_steps=()

if [[ "${1:-}" == --gpu ]]; then
  say "Packages"
  "$root/scripts/install_deps.sh"
  say "Build"
  cd "$root"
  [[ -f build/cuda-release/build.ninja ]] ||
    cmake --preset cuda-release -DCMAKE_CUDA_ARCHITECTURES=native
  programs=(compute_test memory_attention_test device_build_test device_index_test
    device_searcher_test sharded_source_test)
  cmake --build --preset cuda-release --target "${programs[@]}"
  say "Tests"
  # Where there is no GPU they would be skipped: that is not what was asked for.
  nvidia-smi >/dev/null || fail "there is no GPU here: nvidia-smi does not answer"
  log="$(mktemp)"
  trap 'rm -f "$log"' EXIT
  code=0
  for program in "${programs[@]}"; do
    "build/cuda-release/bin/$program" --gtest_filter='*cuda*:*BFloat16*:*GpuIndex*:*GpuRoom*:*OnAGpu' 2>&1 |
      tee -a "$log" || code=$?
  done
  passed="$(grep -c '^\[       OK \]' "$log" || true)"
  failed="$(grep -c '^\[  FAILED  \].*ms)$' "$log" || true)"
  ((passed + failed > 0)) || fail "no test ran: see above"
  say "$passed passed, $failed failed"
  exit "$code"
fi

if [[ "${1:-}" == --train ]]; then
  say "Packages"
  "$root/scripts/install_deps.sh"
  venv="$root/build/train-venv"
  [[ -x "$venv/bin/python" ]] || python3 -m venv "$venv" ||
    fail "no virtual environment could be made: Debian and Ubuntu have it in the package python3-venv"
  "$venv/bin/pip" install --quiet torch==2.11.0
  torch="$("$venv/bin/python" -c 'import torch; print(torch.__path__[0])')"
  say "Build"
  cd "$root"
  cmake --preset release -B build/train -DFOVEA_TRAIN=on -DTorch_ROOT="$torch" -DFOVEA_CUDA=off
  cmake --build build/train --target train_test fovea_train_program fovea_cli
  say "Tests"
  log="$(mktemp)"
  trap 'rm -f "$log"' EXIT
  code=0
  OMP_WAIT_POLICY=passive build/train/bin/train_test 2>&1 | tee "$log" || code=$?
  say "$(grep -c '^\[       OK \]' "$log" || true) passed, $(grep -c '^\[  FAILED  \].*ms)$' "$log" || true) failed"
  exit "$code"
fi

say "Packages"
"$root/scripts/install_deps.sh" --browser "${checks[@]}"

say "Python"
# What builds and tests the Python package. Without it the package is neither built nor tested.
venv="$root/build/python-venv"
if ! "$venv/bin/python" -c 'import nanobind, numpy, pytest' 2>/dev/null; then
  if python3 -m venv "$venv" &&
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'nanobind>=2.4,<4' numpy pytest; then
    [[ ! -f "$build/build.ninja" ]] || cmake "$build" # it was configured without
  else
    echo "pip cannot get nanobind, numpy and pytest: the Python package is left out"
  fi
fi

say "Build"
build_release all

say "Default model"
# Without it most tests still run; the run as a whole has failed.
"$fovea" model pull smollm2 --quiet || failed_steps+=("fovea model pull smollm2")

if [[ ${#checks[@]} -gt 0 ]]; then
  say "Format"
  # Releases of clang-format differ in their mind about the same style: the one of Debian 12 counts.
  if [[ "$(clang-format --version)" == *" 14."* ]]; then
    "$root/scripts/format.sh" || failed_steps+=("scripts/format.sh")
  fi
  say "clang-tidy"
  tree="$(git -C "$root" rev-parse 'HEAD^{tree}' 2>/dev/null || echo 0)"
  part="$((16#${tree:0:6} % 16))/16"
  # Shown, not counted: releases of clang-tidy differ in what they know of C++20.
  "$root/scripts/tidy.sh" --part "$part" || true
  say "Sanitizers"
  "$root/scripts/sanitize.sh" || failed_steps+=("scripts/sanitize.sh")
fi

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
