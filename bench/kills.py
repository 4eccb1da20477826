"""Kills fovea with SIGKILL at random moments of ingest, sealing, rebuild and delete, and checks after
each that nothing that was reported as stored is lost and that verify finds nothing.

  python3 bench/kills.py [--kills 200] [--seed 1]

Works on a tiny random model that it writes itself: what counts here are commits, not answers. Small
windows and an index specification that has files make every step happen within a second.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import common
import tiny_model

options = common.arguments(__doc__, kills=200, seed=1, index="IVF16,Flat")
rng = random.Random(options.seed)


def run_killed(args, seconds):
    """Starts fovea, kills it after `seconds`; returns its lines and whether it was killed."""
    process = subprocess.Popen([options.fovea, *args], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    try:
        output, _ = process.communicate(timeout=seconds)
        return output.splitlines(), False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        return output.splitlines(), True


model = os.path.join(options.work, "tiny-model")
tiny_model.write_tiny_model(model)
memory = os.path.join(options.work, "killed")
shutil.rmtree(memory, ignore_errors=True)
folder = os.path.join(options.work, "killed-texts")
shutil.rmtree(folder, ignore_errors=True)
os.makedirs(folder)

# What must be there: content by id prefix; `maybe` may be there or not (a kill came before the word).
stored = {}
kills = {"ingest": 0, "rebuild": 0, "delete": 0}
problems = []
next_file = 0
base = ["--memory", memory]


def check(step):
    findings = common.fovea(options, "verify", *base, check=False)
    if not findings or not findings[-1]["ok"]:
        problems.append([step, "verify", findings[-1]["damaged"] if findings else "no output"])
    documents = {d["id"][:12]: d for r in common.fovea(options, "docs", "list", *base)
                 for d in r.get("documents", [r])}
    for prefix, state in list(stored.items()):
        if prefix not in documents and state == "sure":
            problems.append([step, "lost", prefix])
        if prefix in documents and state == "deleted":
            problems.append([step, "came back", prefix])
        if state == "maybe deleted":
            if prefix in documents:
                stored[prefix] = "sure"
            else:
                del stored[prefix]


def new_texts():
    global next_file
    paths = []
    for _ in range(rng.randint(2, 6)):
        path = os.path.join(folder, f"{next_file}.txt")
        next_file += 1
        with open(path, "w", encoding="utf-8") as f:
            f.write(tiny_model.random_text(rng, rng.randint(2000, 60000)))
        paths.append(path)
    return paths


# The first ingest is not killed: it makes the memory.
lines, _ = run_killed(["ingest", *base, "--model", model, "--mem-layers", "0,1",
                       "--window", "256", "--index", options.index, *new_texts()], 600)
durations = {"ingest": 2.0, "rebuild": 1.0, "delete": 0.3}
pending = []
while sum(kills.values()) < options.kills and not problems:
    for line in lines:
        if line.startswith(("added", "replaced")):
            stored[line.split()[1]] = "sure"
    step = rng.choices(["ingest", "rebuild", "delete"], [6, 3, 2])[0]
    sure = [p for p, s in stored.items() if s == "sure"]
    if step == "delete" and len(sure) < 3:
        step = "ingest"
    if step == "ingest":
        if not pending:
            pending = new_texts()
        args = ["ingest", *base, *pending]
    elif step == "rebuild":
        args = ["rebuild", *base]
    else:
        victim = rng.choice(sure)
        stored[victim] = "maybe deleted"
        args = ["docs", "delete", *base, victim]
    limit = rng.uniform(0.02, 1.1) * durations[step]
    start = time.time()
    lines, killed = run_killed(args, limit)
    if killed:
        kills[step] += 1
    else:
        durations[step] = 0.7 * durations[step] + 0.3 * max(time.time() - start, 0.05)
        if step == "ingest":
            pending = []
    if killed:
        durations[step] *= 1.02
    check(step)
    for line in lines:
        if line.startswith(("added", "replaced")):
            stored[line.split()[1]] = "sure"
    lines = []
    if killed:
        check(step)

print(json.dumps({"bench": "kills", "kills": kills, "documents": len(stored), "problems": problems}))
sys.exit(1 if problems else 0)
