"""Flips single bits in the files of a memory, and checks after each that no command answers wrongly
without a word: it answers as before, or says what is damaged; verify finds what an answer needs, and
verify --repair loses no document whose text can still be read.

  python3 bench/flips.py [--flips 2000] [--seed 1] [--jobs 2]

Works on a tiny random model that it writes itself, and on a memory in which documents were replaced
and deleted. Progress goes to standard error; a run that is cut goes on where it was when it is
started again with the same --work and --seed.
"""
import collections
import concurrent.futures
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import common
import tiny_model

COUNTS = ("same answer", "answered, saying what is damaged", "refused", "found by verify", "repaired", "not repaired")
MAX_PROBLEMS = 10
# Always in the same precision: "auto" is chosen by a measurement of time.
ASK = ("ask", "--precision", "float32", "--max-tokens", "8", "--reread", "1", "what is it?")

options = common.arguments(__doc__, flips=2000, seed=1, jobs=2, index="IVF16,Flat")
model = os.path.join(options.work, "tiny-model")
tiny_model.write_tiny_model(model)
whole = os.path.join(options.work, "whole")
state_path = os.path.join(options.work, "flips.json")
started = time.time()


def make_memory():
    """Documents in table files and in the log, segments with index files, something deleted."""
    rng = random.Random(options.seed)
    shutil.rmtree(whole, ignore_errors=True)

    def ingest(name, *more):
        path = os.path.join(options.work, f"flips-{name}.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.write(tiny_model.random_text(rng, rng.randint(2500, 5000)))
        return common.fovea(options, "ingest", "--memory", whole, *more, path)[-1]["documents"][0]

    first = ingest("0", "--model", model, "--mem-layers", "0,1", "--window", "256",
                   "--index", options.index)
    for i in range(1, 5):
        ingest(str(i))
    ingest("1")  # replaces
    common.fovea(options, "docs", "delete", "--memory", whole, first["id"])


def run(memory, *args):
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
            # A damaged index is passed over for the exact search, which may weigh an answer's
            # sources otherwise.
            if "answer" in line:
                line["sources"] = sorted((s["document"], s["start"]) for s in line["sources"])
    return result.returncode, lines, result.stderr


def documents(memory):
    code, lines, _ = run(memory, "docs", "list")
    return {d["id"] for d in lines} if code == 0 else None


def flip(number, memory):
    """One flip in a fresh copy; what happened, and what should not have."""
    rng = random.Random(f"{options.seed}/{number}")
    name = rng.choices(files, weights)[0]
    at, bit = rng.randrange(os.path.getsize(os.path.join(whole, name))), rng.randrange(8)
    shutil.rmtree(memory, ignore_errors=True)
    shutil.copytree(whole, memory)
    with open(os.path.join(memory, name), "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << bit]))
    where = f"flip {number}: {name}, byte {at}, bit {bit}"
    counts, problems = collections.Counter(), []
    code, answer, message = run(memory, *ASK)
    if code == 0:
        told = any(os.path.basename(name) in note for line in answer for note in line["notes"])
        if answer in (expected, exact_answers.get(name, expected)):
            counts["same answer"] += 1
        elif told:
            counts["answered, saying what is damaged"] += 1
        else:
            problems.append([where, "another answer without a word"])
    elif code == 1 and message.strip():
        counts["refused"] += 1
    else:
        problems.append([where, f"ask ends with {code}", message[-300:]])
    found, _, message = run(memory, "verify")
    if found not in (0, 3):
        problems.append([where, f"verify ends with {found}", message[-300:]])
    if found == 0 and (code != 0 or counts["answered, saying what is damaged"] > 0):
        problems.append([where, "verify does not find what ask tells of"])
    if found == 3:
        counts["found by verify"] += 1
        repaired, _, message = run(memory, "verify", "--repair")
        if repaired not in (0, 3):
            problems.append([where, f"repair ends with {repaired}", message[-300:]])
        elif repaired == 0:
            counts["repaired"] += 1
            if documents(memory) != stored:
                problems.append([where, "a repair that says that all is well lost documents"])
        else:
            counts["not repaired"] += 1
    return counts, problems


state = {"seed": options.seed, "index": options.index, "done": 0, "counts": dict.fromkeys(COUNTS, 0),
         "problems": []}
if os.path.exists(state_path):
    with open(state_path, encoding="utf-8") as f:
        old = json.load(f)
    if (old["seed"], old["index"]) == (options.seed, options.index) and os.path.isdir(whole):
        state = old
        print(f"goes on after {state['done']} flips", file=sys.stderr)
if state["done"] == 0:
    make_memory()

files = sorted(os.path.relpath(os.path.join(folder, name), whole)
               for folder, _, names in os.walk(whole) for name in names)
files = [f for f in files if os.path.getsize(os.path.join(whole, f)) > 0]
# By size, but every file now and then.
weights = [os.path.getsize(os.path.join(whole, f)) + 20000 for f in files]
memories = [os.path.join(options.work, f"flipped-{i}") for i in range(options.jobs)]
shutil.rmtree(memories[0], ignore_errors=True)
shutil.copytree(whole, memories[0])
code, expected, message = run(memories[0], *ASK)
assert code == 0, message
stored = documents(memories[0])
# A segment whose index file is damaged is searched exactly, as one whose file is missing.
exact_answers = {}
for name in files:
    if f"{os.sep}index{os.sep}" in name:
        shutil.rmtree(memories[0])
        shutil.copytree(whole, memories[0])
        os.remove(os.path.join(memories[0], name))
        code, exact_answers[name], message = run(memories[0], *ASK)
        assert code == 0, message

local = threading.local()
free = list(memories)


def task(number):
    if not hasattr(local, "memory"):
        local.memory = free.pop()
    return flip(number, local.memory)


with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
    # In portions, so that what is done is always the first so many flips.
    while state["done"] < options.flips and len(state["problems"]) < MAX_PROBLEMS:
        end = min(state["done"] + 10 * options.jobs, options.flips)
        for counts, problems in pool.map(task, range(state["done"], end)):
            for what, n in counts.items():
                state["counts"][what] += n
            state["problems"] += problems
        state["done"] = end
        with open(state_path + ".new", "w", encoding="utf-8") as f:
            json.dump(state, f)
        os.replace(state_path + ".new", state_path)
        print(f"{time.time() - started:.0f} s: {end} of {options.flips} flips, "
              f"{len(state['problems'])} problems", file=sys.stderr, flush=True)

print(json.dumps({"bench": "flips", "flips": state["done"], **state["counts"], "seed": options.seed,
                  "seconds": round(time.time() - started), "problems": state["problems"]}))
sys.exit(1 if state["problems"] else 0)
