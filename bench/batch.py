#!/usr/bin/env python3
"""Questions of a list answered together: whole-process time of `fovea ask -` by the size of a batch.

  bench/batch.py --memory DIR [--questions FILE] [--batches 1,2,4,8] [--rounds 5]

The ways take turns. Every answer and source must be the same in each; figures are medians.
"""
import argparse
import json
import os
import subprocess
import sys
import time

import common

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--fovea", default=os.path.join(common.ROOT, "build/release/bin/fovea"))
parser.add_argument("--memory", required=True)
parser.add_argument("--questions", help="one a line; default: standard input")
parser.add_argument("--batches", default="1,2,4,8")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--max-tokens", type=int, default=64)
parser.add_argument("args", nargs="*", help="more options of ask, after --")
options = parser.parse_args()

questions = open(options.questions).read() if options.questions else sys.stdin.read()
batches = [int(batch) for batch in options.batches.split(",")]


def ask(batch):
    command = [options.fovea, "ask", "--memory", options.memory, "--json", "--quiet", "--batch", str(batch),
               "--max-tokens", str(options.max_tokens), *options.args, "-"]
    begin = time.monotonic()
    result = subprocess.run(command, input=questions, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {result.returncode}: {result.stderr}")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    n_tokens = sum(answer["usage"]["completion_tokens"] for answer in answers)
    for answer in answers:
        del answer["timing"]
    return seconds, n_tokens, answers


seconds = {batch: [] for batch in batches}
first = None
n_differing = 0
for _ in range(options.rounds):
    for batch in batches:
        taken, n_tokens, answers = ask(batch)
        seconds[batch].append(taken)
        first = first or answers
        n_differing += sum(a != b for a, b in zip(first, answers)) + abs(len(first) - len(answers))
base = common.median(seconds[batches[0]])
for batch in batches:
    median = common.median(seconds[batch])
    print(json.dumps({"batch": batch, "questions": len(first), "tokens": n_tokens,
                      "seconds": round(median, 2), "speed": round(base / median, 2)}))
print(json.dumps({"differing_answers": n_differing}))
sys.exit(1 if n_differing else 0)
