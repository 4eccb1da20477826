#!/usr/bin/env python3
"""Two builds of fovea beside each other: is the later one slower?

  bench/compare_builds.py --before OLD/fovea --after NEW/fovea --data DATA [--tokens 262144] [--runs 7]

decode: tokens of the model alone; exact, approximate: tokens of an answer that attends to a memory of
--tokens (made by the earlier build, kept in --work); first token: from the start of the process, a
passage re-read; ingest: a text of --ingest-tokens, the whole command. The builds take turns, and which
of them begins alternates; medians. "ratio" is the speed of the later one over that of the earlier,
"ratio_of_pairs" the median over runs that followed on one another.
"""
import json
import os
import shutil
import subprocess
import sys
import time

import common

options = common.arguments(__doc__, before="", after="", tokens=262144, runs=7, ingest_tokens=20000,
                           ways="decode,exact,approximate,first token,ingest")
PROMPT = "Once upon a time, in a small village by the sea, there lived"
BYTES_PER_TOKEN = 4.35
memory = os.path.join(options.work, f"compare-{options.tokens}")
short_text = os.path.join(options.work, "compare-ingest.txt")


def run(binary, *arguments):
    result = subprocess.run([binary, *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{binary} {' '.join(arguments)}: exit {result.returncode}: {result.stderr}")
    return result.stdout


def ask(binary, *arguments):
    return json.loads(run(binary, "ask", "--memory", memory, "--json", "--quiet", *arguments))


def decode_ms(binary, *arguments):
    answer = ask(binary, "--raw", "--reread", "0", "--max-tokens", "48", *arguments, PROMPT)
    return answer["timing"]["decode_ms_per_token"]


def first_token_ms(binary):
    timing = ask(binary, "--max-tokens", "1", "Where did she go in the morning?")["timing"]
    return timing["open_ms"] + timing["prefill_ms"]


def ingest_ms(binary):
    folder = os.path.join(options.work, "compare-ingest")
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.monotonic()
    run(binary, "ingest", "--memory", folder, "--quiet", "--model", options.model, short_text)
    return 1000 * (time.monotonic() - begin)


WAYS = {"decode": lambda binary: decode_ms(binary, "--no-memory"),
        "exact": lambda binary: decode_ms(binary, "--mode", "exact"),
        "approximate": lambda binary: decode_ms(binary, "--mode", "approximate"),
        "first token": first_token_ms,
        "ingest": ingest_ms}

if not os.path.exists(os.path.join(memory, "CURRENT")):
    path = os.path.join(options.work, "compare.txt")
    with open(path, "w", encoding="utf-8") as f:
        f.write(common.book_text(options, int(options.tokens * BYTES_PER_TOKEN)))
    run(options.before, "ingest", "--memory", memory, "--quiet", "--model", options.model, path)
with open(short_text, "w", encoding="utf-8") as f:
    f.write(common.book_text(options, int(options.ingest_tokens * BYTES_PER_TOKEN), seed=1))

builds = (options.before, options.after)
for name in options.ways.split(","):
    WAYS[name](options.before)  # warms the files
    figures = ([], [])
    for i in range(options.runs):
        for side in (i % 2, 1 - i % 2):
            figures[side].append(WAYS[name](builds[side]))
    before, after = (common.median(values) for values in figures)
    ratios = [b / a for b, a in zip(*figures)]
    print(json.dumps({"way": name, "before_ms": round(before, 2), "after_ms": round(after, 2),
                      "ratio": round(before / after, 3),
                      "ratio_of_pairs": round(common.median(ratios), 3)}), flush=True)
