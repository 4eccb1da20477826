"""Kills fovea with SIGKILL at random moments of ingest, sealing, rebuild, re-encoding and delete, and
checks after each that nothing that was reported as stored is lost, that nothing that was reported as
deleted is back, and that verify finds nothing.

  python3 bench/kills.py [--kills 1000] [--seed 1] [--jobs 2]

Works on a tiny random model that it writes itself: what counts here are commits, not answers. Small
windows and an index specification that has files make every step happen within a second. Each job
kills on a memory of its own, which is kept small by deleting. Progress goes to standard error; a run
that is cut goes on where it was when it is started again with the same --work and --seed.
"""
import hashlib
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

STEPS = {"ingest": 6, "rebuild": 3, "reencode": 1, "delete": 2}
MAX_DOCUMENTS = 24  # above that, deletions take several at once

options = common.arguments(__doc__, kills=1000, seed=1, jobs=2, index="IVF16,Flat")
model = os.path.join(options.work, "tiny-model")
tiny_model.write_tiny_model(model)
lock = threading.Lock()
jobs = []
stop = threading.Event()
started = time.time()


class Job:
    """One memory, and what must be in it."""

    def __init__(self, number, n_kills):
        self.number, self.n_kills = number, n_kills
        self.memory = os.path.join(options.work, f"killed-{number}")
        self.folder = os.path.join(options.work, f"killed-{number}-texts")
        self.state_path = os.path.join(options.work, f"killed-{number}.json")
        # Durations of steps that were not killed, in seconds: where the moments of kills lie.
        self.state = {"seed": options.seed, "index": options.index, "step": 0, "next_file": 0,
                      "kills": dict.fromkeys(STEPS, 0), "problems": [],
                      "durations": {"ingest": 1.0, "rebuild": 1.0, "reencode": 1.0, "delete": 0.3},
                      # id prefix -> "sure" | "deleted" | "maybe deleted" (killed before the word)
                      "stored": {}, "pending": []}
        if os.path.exists(self.state_path):
            with open(self.state_path, encoding="utf-8") as f:
                old = json.load(f)
            if (old["seed"], old["index"]) == (options.seed, options.index):
                self.state = old
                print(f"job {number}: goes on after {self.total()} kills", file=sys.stderr)
                return
        shutil.rmtree(self.memory, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)

    def total(self):
        return sum(self.state["kills"].values())

    def save(self):
        with open(self.state_path + ".new", "w", encoding="utf-8") as f:
            json.dump(self.state, f)
        os.replace(self.state_path + ".new", self.state_path)

    def problem(self, *what):
        self.state["problems"].append([self.number, self.state["step"], *what])

    def new_texts(self, rng):
        paths = []
        for _ in range(rng.randint(2, 5)):
            path = os.path.join(self.folder, f"{self.state['next_file']}.txt")
            self.state["next_file"] += 1
            with open(path, "w", encoding="utf-8") as f:
                f.write(tiny_model.random_text(rng, rng.randint(500, 9000)))
            paths.append(path)
        return paths

    def run(self, args, seconds):
        """Starts fovea, kills it after `seconds`; returns its lines and whether it was killed."""
        command = [options.fovea, *args, "--memory", self.memory, "--threads", "1"]
        if args[0] == "docs":
            command = command[:-2]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            output, messages = process.communicate(timeout=seconds)
            if process.returncode != 0:
                self.problem(args[0], f"exit status {process.returncode}", messages[-500:])
            return output.splitlines(), False
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            return output.splitlines(), True

    def check(self, step):
        """The memory against what was reported; settles what a kill left open."""
        findings = common.fovea(options, "verify", "--memory", self.memory, check=False)
        if not findings or not findings[-1]["ok"]:
            self.problem(step, "verify", findings[-1]["damaged"] if findings else "no output")
        there = {d["id"][:12] for d in common.fovea(options, "docs", "list", "--memory", self.memory)}
        stored = self.state["stored"]
        for prefix, state in list(stored.items()):
            if state == "sure" and prefix not in there:
                self.problem(step, "lost", prefix)
            elif state == "deleted" and prefix in there:
                self.problem(step, "came back", prefix)
            elif state == "maybe deleted":
                stored[prefix] = "sure" if prefix in there else "deleted"
        # Stored before the kill, but not reported: from now on it must stay.
        for prefix in there:
            if prefix not in stored:
                stored[prefix] = "sure"

    def one_step(self):
        state = self.state
        rng = random.Random(f"{options.seed}/{self.number}/{state['step']}")
        sure = sorted(p for p, s in state["stored"].items() if s == "sure")
        step = rng.choices(list(STEPS), list(STEPS.values()))[0]
        if len(sure) > MAX_DOCUMENTS:
            step = "delete"
        elif step == "delete" and len(sure) < 3:
            step = "ingest"
        victims = []
        if step == "ingest":
            if not state["pending"]:
                state["pending"] = self.new_texts(rng)
            args = ["ingest", *state["pending"]]
            # What a killed ingest had stored, and was deleted since, comes back now.
            for path in state["pending"]:
                with open(path, "rb") as f:
                    prefix = hashlib.sha256(f.read()).hexdigest()[:12]
                if state["stored"].get(prefix) == "deleted":
                    del state["stored"][prefix]
        elif step == "delete":
            n = 1 if len(sure) <= MAX_DOCUMENTS else len(sure) // 2
            victims = rng.sample(sure, n)
            args = ["docs", "delete", *victims]
            for victim in victims:
                state["stored"][victim] = "maybe deleted"
        else:
            args = ["rebuild"] + (["--reencode"] if step == "reencode" else [])
        self.save()
        begin = time.time()
        lines, killed = self.run(args, rng.uniform(0.02, 1.1) * state["durations"][step])
        if killed:
            state["kills"][step] += 1
            state["durations"][step] *= 1.02
        else:
            state["durations"][step] = (0.7 * state["durations"][step]
                                        + 0.3 * max(time.time() - begin, 0.02))
            if step == "ingest":
                state["pending"] = []
        for line in lines:
            word, _, rest = line.partition(" ")
            if word in ("added", "replaced"):
                state["stored"][rest.split()[0]] = "sure"
            elif word == "deleted":
                state["stored"][rest.split()[0]] = "deleted"
        self.check(step)
        state["step"] += 1
        self.save()

    def work(self):
        try:
            if self.state["step"] == 0:  # not killed: it makes the memory
                rng = random.Random(f"{options.seed}/{self.number}/first")
                lines, _ = self.run(["ingest", "--model", model, "--mem-layers", "0,1", "--window",
                                     "256", "--index", options.index, *self.new_texts(rng)], 600)
                for line in lines:
                    if line.startswith("added "):
                        self.state["stored"][line.split()[1]] = "sure"
                self.state["step"] = 1
                self.check("ingest")
            while self.total() < self.n_kills and not stop.is_set():
                self.one_step()
                if self.state["problems"]:
                    stop.set()
        except BaseException as error:
            self.problem("the bench itself", repr(error))
            stop.set()


for number in range(options.jobs):
    jobs.append(Job(number, options.kills * (number + 1) // options.jobs
                    - options.kills * number // options.jobs))
threads = [threading.Thread(target=job.work) for job in jobs]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    for thread in threads:
        thread.join(timeout=15 / len(threads))
    print(f"{time.time() - started:.0f} s: {sum(job.total() for job in jobs)} of {options.kills} kills",
          file=sys.stderr, flush=True)

kills = {step: sum(job.state["kills"][step] for job in jobs) for step in STEPS}
problems = [problem for job in jobs for problem in job.state["problems"]]
print(json.dumps({
    "bench": "kills", "kills": sum(kills.values()), "by_step": kills,
    "steps": sum(job.state["step"] for job in jobs),
    "documents": sum(len(job.state["stored"]) for job in jobs), "seed": options.seed,
    "seconds": round(time.time() - started), "problems": problems}))
sys.exit(1 if problems else 0)
