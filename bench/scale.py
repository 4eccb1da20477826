"""How ingest and first token scale: tokens/s of the last tenth of an ingest against the first tenth,
and the time to open a memory and give the first token against the time to ingest it.

  python3 bench/scale.py --data DATA [--tokens 500000] [--open-tokens 262144]

Tenths: one process ingests documents of a hundredth of the tokens each; its lines are timed as they
come. Opening: processes ask one question each; the first token's time is from the start of the process to
the first byte of the answer, the median is taken: the memory alone, and with re-reading, which is the
default.
"""
import json
import os
import re
import shutil
import subprocess
import time

import common

options = common.arguments(__doc__, tokens=500000, open_tokens=262144, repeats=5)
BYTES_PER_TOKEN = 4.35


def split_text(n_tokens, n_parts, name):
    folder = os.path.join(options.work, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    text = common.book_text(options, int(n_tokens * BYTES_PER_TOKEN))
    size = len(text) // n_parts
    for i in range(n_parts):
        with open(os.path.join(folder, f"{i:03}.txt"), "w", encoding="utf-8") as f:
            f.write(text[i * size:(i + 1) * size])
    return folder


def ingest_timed(folder, memory):
    """(time, tokens) of each document as the process reports it; its total seconds."""
    shutil.rmtree(memory, ignore_errors=True)
    command = [options.fovea, "ingest", "--memory", memory, "--model", options.model, "--recursive",
               "--quiet", folder]
    if options.adapter:
        command += ["--adapter", options.adapter]
    start = time.time()
    times = []  # (seconds since the start, tokens) of each document
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("added"):
                tokens = int(re.search(r"\(([\d,]+) tokens\)", line)[1].replace(",", ""))
                times.append((time.time() - start, tokens))
    return times, time.time() - start


def first_token_seconds(memory, *args):
    command = [options.fovea, "ask", "--memory", memory, "--max-tokens", "8", "--quiet", *args,
               "Who is the narrator?"]
    start = time.time()
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        process.stdout.read(1)
        seconds = time.time() - start
        process.stdout.read()
    return seconds


figures = {"bench": "scale"}
if options.tokens:
    times, seconds = ingest_timed(split_text(options.tokens, 100, "scale-texts"),
                                  os.path.join(options.work, "scale"))
    # Rates of runs of documents; the first document also waits for the model and is left out.
    def rate(begin, end):
        tokens = sum(t for _, t in times[begin + 1:end + 1])
        return tokens / (times[end][0] - times[begin][0])

    n = len(times) - 1
    rates = [rate(n * i // 10, n * (i + 1) // 10) for i in range(10)]
    total = sum(t for _, t in times)
    figures["ingest"] = {"tokens": total, "seconds": round(seconds, 1),
                         "tokens_per_second": round(total / seconds, 1),
                         "tokens_per_second_by_tenth": [round(r) for r in rates],
                         "last_to_first_tenth": round(rates[-1] / rates[0], 3)}
if options.open_tokens:
    memory = os.path.join(options.work, "open")
    _, seconds = ingest_timed(split_text(options.open_tokens, 4, "open-texts"), memory)
    memory_tokens = common.fovea(options, "stats", "--memory", memory)[-1]["tokens"]
    alone = [first_token_seconds(memory, "--reread", "0") for _ in range(options.repeats)]
    reread = [first_token_seconds(memory) for _ in range(options.repeats)]
    figures["open"] = {"tokens": memory_tokens, "ingest_seconds": round(seconds, 1),
                       "first_token_seconds": round(common.median(alone), 3),
                       "first_token_seconds_with_rereading": round(common.median(reread), 3),
                       "ingest_against_first_token": round(seconds / common.median(alone), 1),
                       "ingest_against_first_token_with_rereading":
                           round(seconds / common.median(reread), 1)}
print(json.dumps(figures, indent=1))
