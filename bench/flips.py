"""Flips single bits in the files of a memory, and checks after each that no command answers wrongly
without a word: it answers as before, or says what is damaged; verify finds what an answer needs, and
verify --repair loses no document whose text can still be read.

  python3 bench/flips.py [--flips 200] [--seed 1]

Works on a tiny random model that it writes itself.
"""
import json
import os
import random
import shutil
import subprocess
import sys

import common
import tiny_model

options = common.arguments(__doc__, flips=200, seed=1, index="IVF16,Flat")
rng = random.Random(options.seed)
model = os.path.join(options.work, "tiny-model")
tiny_model.write_tiny_model(model)
whole = os.path.join(options.work, "whole")
memory = os.path.join(options.work, "flipped")
shutil.rmtree(whole, ignore_errors=True)
texts = []
for i in range(6):
    texts.append(os.path.join(options.work, f"flips-{i}.txt"))
    with open(texts[-1], "w", encoding="utf-8") as f:
        f.write(tiny_model.random_text(rng, rng.randint(8000, 24000)))
common.fovea(options, "ingest", "--memory", whole, "--model", model, "--mem-layers", "0,1",
             "--window", "256", "--index", options.index, *texts)


def run(*args):
    """Exit status, JSON results without their times, messages."""
    result = subprocess.run([options.fovea, *args, "--memory", memory, "--json", "--quiet"],
                            capture_output=True, text=True, errors="replace")
    try:
        lines = [json.loads(line) for line in result.stdout.splitlines()]
    except json.JSONDecodeError:
        lines = [result.stdout]
    for line in lines:
        if isinstance(line, dict):
            line.pop("timing", None)
            # A damaged index is passed over for the exact search, which may weigh sources otherwise.
            line["sources"] = sorted((s["document"], s["start"]) for s in line.get("sources", []))
    return result.returncode, lines, result.stderr


ASK = ("ask", "--max-tokens", "8", "--reread", "1", "what is it?")


def documents():
    code, lines, _ = run("docs", "list")
    return {d["id"] for d in lines} if code == 0 else None


shutil.rmtree(memory, ignore_errors=True)
shutil.copytree(whole, memory)
_, expected, _ = run(*ASK)
stored = documents()
files = [os.path.relpath(os.path.join(folder, name), whole)
         for folder, _, names in os.walk(whole) for name in names]
# By size, but every file now and then.
weights = [os.path.getsize(os.path.join(whole, f)) + 20000 for f in files]
counts = {"same answer": 0, "refused": 0, "found by verify": 0, "repaired": 0, "not repaired": 0}
problems = []
n = 0
while n < options.flips and len(problems) < 10:
    name = rng.choices(files, weights)[0]
    size = os.path.getsize(os.path.join(whole, name))
    if size == 0:
        continue
    n += 1
    shutil.rmtree(memory)
    shutil.copytree(whole, memory)
    at, bit = rng.randrange(size), rng.randrange(8)
    with open(os.path.join(memory, name), "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << bit]))
    where = f"{name}, byte {at}, bit {bit}"
    code, answer, message = run(*ASK)
    if code == 0:
        if answer != expected:
            problems.append([where, "another answer without a word"])
        counts["same answer"] += 1
    elif code == 1 and message.strip():
        counts["refused"] += 1
    else:
        problems.append([where, f"ask ends with {code}", message[-300:]])
    found, report, message = run("verify")
    if found not in (0, 3):
        problems.append([where, f"verify ends with {found}", message[-300:]])
    if code != 0 and found == 0:
        problems.append([where, "verify does not find what ask refuses"])
    if found == 3:
        counts["found by verify"] += 1
        repaired, report, message = run("verify", "--repair")
        if repaired not in (0, 3):
            problems.append([where, f"repair ends with {repaired}", message[-300:]])
        elif repaired == 0:
            counts["repaired"] += 1
            if documents() != stored:
                problems.append([where, "a repair that says that all is well lost documents"])
        else:
            counts["not repaired"] += 1

print(json.dumps({"bench": "flips", "flips": n, **counts, "problems": problems}))
sys.exit(1 if problems else 0)
