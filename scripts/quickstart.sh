#!/usr/bin/env bash
# From nothing to answers with sources: installs, builds, gets the default model, ingests the
# documents of examples/, asks questions, and shows that a later process answers at once.
#
# Usage: scripts/quickstart.sh [--serve] [MEMORY]       (default: ./fovea-memory)
#   --serve  ends with a server of the memory, and says the address of its page; Ctrl+C stops it
#
# Run it again: it does no work twice.
questions=(
  "Who got the first Nobel Prize in Physics?"
  "Who said if a tree falls in the woods and nobody hears it?"
  "What state does Rick and Morty take place in?"
  "Who was the first woman to win Who Wants to Be a Millionaire?"
)

source "$(dirname "$0")/common.sh"
serves=false
memory=""
for argument in "$@"; do
  case "$argument" in
    --serve) serves=true ;;
    -h | --help) usage && exit ;;
    -*) fail "unknown option $argument (see --help)" ;;
    *)
      [[ -z "$memory" ]] || fail "one memory, not $memory and $argument (see --help)"
      memory="$argument"
      ;;
  esac
done
memory="$(realpath -m -- "${memory:-fovea-memory}")"
examples=(
  "$root/examples/a-study-in-scarlet.txt"
  "$root/examples/flatland.txt"
  "$root/examples/encyclopedia.jsonl"
)

# The value at a path of names in a JSON object on standard input: json timing open_ms
json() {
  python3 -c 'import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1:]:
    value = value[name]
print(f"{value:.0f}" if isinstance(value, float) else value)' "$@"
}
seconds_since() { python3 -c 'import sys; print(f"{float(sys.argv[2]) - float(sys.argv[1]):.1f}")' "$1" "$EPOCHREALTIME"; }

say "Packages"
"$root/scripts/install_deps.sh"

say "Build"
# Kernels that nothing here could run would make the build longer: README, "On a GPU", has the switch.
nvidia-smi >/dev/null 2>&1 || configure_release -DFOVEA_CUDA=off
build_release fovea_cli

say "Default model"
"$fovea" model pull smollm2

say "Ingest: two novels and 600 paragraphs of an encyclopedia, into $memory"
start="$EPOCHREALTIME"
"$fovea" ingest --memory "$memory" "${examples[@]}" | tail -n 1
ingest_seconds="$(seconds_since "$start")"

for question in "${questions[@]}"; do
  say "fovea ask --memory $memory \"$question\""
  "$fovea" ask --memory "$memory" "$question"
done

say "Once more, in a new process: nothing is read again, nothing is encoded again"
encoded="$("$fovea" ingest --memory "$memory" --quiet --json "${examples[@]}" | json encoded_tokens)"
echo "tokens encoded by a second ingest of the same files: $encoded"
start="$EPOCHREALTIME"
result="$("$fovea" ask --memory "$memory" --quiet --json "${questions[0]}")"
ask_seconds="$(seconds_since "$start")"
echo "the answer, ${ask_seconds} s after the process started: $(json answer <<<"$result")"
echo "  memory of $(json usage memory_tokens <<<"$result") tokens opened in $(json timing open_ms <<<"$result") ms," \
  "prompt of $(json usage prompt_tokens <<<"$result") tokens read in $(json timing prefill_ms <<<"$result") ms"
echo "  the ingest of this run took ${ingest_seconds} s"

if "$serves"; then
  port=8080
  if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then port=0; fi # taken: any that is free
  say "Your turn: ask, and add documents, at this address. Ctrl+C stops the server; this starts it again:"
  echo "  $fovea serve --memory $memory"
  exec "$fovea" serve --memory "$memory" --port "$port"
fi

say "Your turn"
echo "  $fovea ask --memory $memory \"Your question\""
echo "  $fovea ingest --memory $memory --recursive YOUR_FOLDER"
echo "  $fovea serve --memory $memory      # a page for both, and OpenAI's API"
