"""Tokens/s of an answer with a memory against the model alone, the exact search beside "auto".

  python3 bench/answer_rate.py --data DATA [--tokens 262144] [--large-tokens 2000000] [--warm 20]

Book text is ingested into a memory of --tokens (kept in --work for the next run), and one of
--large-tokens when that is not 0 (half an hour and more). Every round runs each way once, one
process that continues six beginnings of sentences in turn: the first --warm continuations (1) warm
the process and are left out of the rate, five more are counted. Medians over all rounds. Also: needle recall of the segments, the largest resident
memory of `ask`, bytes on disk per token.
"""
import json
import os
import subprocess
import sys
import tempfile

import common

options = common.arguments(__doc__, tokens=262144, large_tokens=0, rounds=3, max_tokens=48,
                           warm=1, modes="exact,auto")
BYTES_PER_TOKEN = 4.35
BEGINNINGS = ["The history of the town begins with", "She looked at the river and said that",
              "The old man left the key in the", "In the morning the soldiers went to",
              "The most important question of philosophy is", "He opened the letter and read:"]


def make_memory(n_tokens):
    memory = os.path.join(options.work, f"answer-rate-{n_tokens}")
    if os.path.exists(os.path.join(memory, "CURRENT")):
        return memory
    path = os.path.join(options.work, f"answer-rate-{n_tokens}.txt")
    with open(path, "w", encoding="utf-8") as f:
        # More than the held-out books have: those of the training serve a measurement of speed.
        f.write(common.book_text(options, int(n_tokens * BYTES_PER_TOKEN), held_out=n_tokens < 500000))
    common.ingest(options, memory, path)
    return memory


def run(arguments):
    """Milliseconds a token of all continuations, and the largest resident bytes."""
    command = [options.fovea, "ask", "--raw", "--reread", "0", "--max-tokens", str(options.max_tokens),
               "--json", "--quiet", *arguments, "-"]
    if options.threads:
        command += ["--threads", str(options.threads)]
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile("w+") as stdout:
        stdin.write("".join(BEGINNINGS[i % len(BEGINNINGS)] + "\n" for i in range(options.warm + 5)))
        stdin.seek(0)
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
        stdout.seek(0)
        timings = [json.loads(line)["timing"] for line in stdout if line.strip()]
    return timings, usage.ru_maxrss * 1024


def folder_bytes(folder):
    return sum(os.path.getsize(os.path.join(root, name))
               for root, _, names in os.walk(folder) for name in names)


def measure(n_tokens):
    memory = make_memory(n_tokens)
    stats = common.fovea(options, "stats", "--memory", memory)[-1]
    ways = {"no memory": ["--no-memory", "--model", options.model],
            "exact": ["--memory", memory, "--mode", "exact"],
            "auto": ["--memory", memory]}
    modes = options.modes.split(",")
    ways = {way: ways[way] for way in ["no memory", *modes]}
    decode = {way: [] for way in ways}
    first = {way: [] for way in ways}
    resident = {way: 0 for way in ways}
    for _ in range(options.rounds):
        for way, arguments in ways.items():
            timings, rss = run(arguments)
            decode[way] += [t["decode_ms_per_token"] for t in timings[options.warm:]]
            first[way].append(timings[0]["open_ms"] + timings[0]["prefill_ms"])
            resident[way] = max(resident[way], rss)
    ms = {way: common.median(times) for way, times in decode.items()}
    return {"tokens": stats["tokens"],
            "segments": stats["segments"],
            "ms_per_token": {way: round(value, 2) for way, value in ms.items()},
            "rate_against_no_memory": {way: round(ms["no memory"] / ms[way], 3)
                                       for way in modes},
            "first_question_ms": {way: round(common.median(times)) for way, times in first.items()},
            "resident_mb": {way: round(value / 1e6) for way, value in resident.items()},
            "bytes_per_token": round(folder_bytes(memory) / stats["tokens"], 1)}


figures = {"bench": "answer_rate", "memory": measure(options.tokens)}
if options.large_tokens:
    figures["large_memory"] = measure(options.large_tokens)
print(json.dumps(figures))
