#!/usr/bin/env bash
# What reads bytes of strangers (documents, weights, tokenizers, records, index files), under the
# address and undefined-behaviour sanitizers: a part of `ctest --preset asan` that is quick to build.
source "$(dirname "$0")/common.sh"
cd "$root"
tests=(base_test record_codec_test documents_test)
for corpus in tests/fuzz/corpus/*/; do
  tests+=("fuzz_$(basename "$corpus")")
done
[[ -f build/asan/build.ninja ]] || cmake --preset asan >/dev/null
cmake --build --preset asan --target "${tests[@]}" >build/asan/build.log 2>&1 || {
  tail -n 50 build/asan/build.log >&2
  fail "the build failed"
}
ctest --preset asan --parallel "$(nproc)" -R "^($(IFS='|' && echo "${tests[*]}"))\$"
