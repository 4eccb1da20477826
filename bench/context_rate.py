"""Tokens/s of an answer: a memory of fovea against the same text as context in llama.cpp.

  python3 bench/context_rate.py --data DATA --llama-python VENV/bin/python [--depth 65536] [--threads 2]
  python3 bench/context_rate.py ... --check 8192

Book text of about --depth tokens is ingested into a memory (kept in --work, or an existing one:
--memory), and llama.cpp gets a context of exactly as many tokens as the memory holds, of the same
text: --piece tokens of it are evaluated, and their cells repeated (bench/llama_decode.py says how
and why that is the same work). llama.cpp is measured
in each configuration: the file as it is, requantised by llama.cpp to Q4_0 and to F16; flash attention
off and on; with it also a cache in Q8_0 (quantised values need it). Each configuration has a process
with the whole context: at 65,536 tokens of the default model the caches of all nine take 11.5 GB.

fovea runs as it comes: default adapter, "auto" index, --reread 0. Both sides continue the same short
prompt greedily and leave it out of the time. They take turns, so that what else the machine does hits
all alike; the first round warms up; medians of --runs. "ratio" is fovea over llama.cpp's best
configuration.

--check N measures instead what the repeated cells rest on: N tokens evaluated one way beside the
same number repeated from --piece, taking turns; the states have to be of the same size, and
"tiled_over_evaluated" is to be 1 within the noise (two contexts evaluated alike were seen 6% apart).
"""
import json
import os
import sys
import time

import common
import llama_decode

WARM_UP = "The history of the town begins with"
PROMPT = "Once upon a time, in a small village by the sea, there lived"
BYTES_PER_TOKEN = 4.35

options = common.arguments(__doc__, llama_python="", memory="", depth=65536, piece=1024, runs=5,
                           tokens=48, llama_tokens=8, check=0)
if not options.llama_python:
    sys.exit("context_rate.py: give --llama-python (a Python with llama-cpp-python)")
path = common.model_path(options)
files = llama_decode.model_files(options.llama_python, path, options.work)
options.threads = options.threads or len(os.sched_getaffinity(0))
text = os.path.join(options.work, f"context-rate-{options.depth}.txt")
if not os.path.exists(text):
    with open(text, "w", encoding="utf-8") as f:
        f.write(common.book_text(options, int(options.depth * BYTES_PER_TOKEN)))


class Fovea:
    """`ask` on the memory. A process warms with another prompt, as llama.cpp's goes on living."""

    def __init__(self):
        self.memory = options.memory or os.path.join(options.work, f"context-rate-{options.depth}")
        if not os.path.exists(os.path.join(self.memory, "CURRENT")):
            common.ingest(options, self.memory, text)
        self.stats = common.fovea(options, "stats", "--memory", self.memory)[-1]

    def run(self):
        result = common.ask(options, self.memory, [WARM_UP, PROMPT], "--raw", "--reread", "0",
                            "--max-tokens", str(options.tokens))[1]
        n_tokens = result["usage"]["completion_tokens"]
        assert n_tokens == options.tokens, f"the answer ended after {n_tokens} tokens"
        return 1000 / result["timing"]["decode_ms_per_token"]


def llama(file, flash, cache, depth, piece):
    start = time.time()
    side = llama_decode.Llama(options.llama_python, model=file, threads=options.threads, flash=flash,
                              cache=cache, prompt=PROMPT, n_tokens=options.llama_tokens, depth=depth,
                              piece=piece, text=text)
    print(f"context of {depth} tokens ready after {time.time() - start:.0f} s", file=sys.stderr)
    return side


def llama_name(file, flash, cache):
    return f"llama.cpp, {file}, flash attention {'on' if flash else 'off'}, cache {cache}"


def medians(sides):
    rates = common.take_turns(sides, options.runs)
    return ({name: common.median(values) for name, values in rates.items()},
            {name: {"median": round(common.median(values), 2), "min": round(min(values), 2),
                    "max": round(max(values), 2)} for name, values in rates.items()})


def check():
    ways = [("as it is", False, "F16"), ("as it is", True, "F16"), ("as it is", True, "Q8_0")]
    sides, checks = {}, {}
    for file, flash, cache in ways:
        name = llama_name(file, flash, cache)
        for way, piece in (("evaluated", 0), ("tiled", options.piece)):
            sides[f"{name}, {way}"] = llama(files[file], flash, cache, options.check, piece)
        evaluated, tiled = (sides[f"{name}, {way}"].state_bytes for way in ("evaluated", "tiled"))
        assert evaluated == tiled, f"{name}: a state of {tiled} bytes, want {evaluated}"
    middle, rates = medians(sides)
    for way in ways:
        name = llama_name(*way)
        checks[name] = round(middle[f"{name}, tiled"] / middle[f"{name}, evaluated"], 3)
    return {"bench": "context_rate", "check": options.check, "piece": options.piece,
            "threads": options.threads, "runs": options.runs, "tokens": options.llama_tokens,
            "tokens_per_second": rates, "tiled_over_evaluated": checks}


def compare():
    sides = {"fovea": Fovea()}
    depth = sides["fovea"].stats["tokens"]
    for file in files:
        for flash, cache in ((False, "F16"), (True, "F16"), (True, "Q8_0")):
            sides[llama_name(file, flash, cache)] = llama(files[file], flash, cache, depth,
                                                          options.piece)
    middle, rates = medians(sides)
    best = max((name for name in middle if name != "fovea"), key=middle.get)
    return {"bench": "context_rate", "memory_tokens": depth, "context_tokens": depth,
            "piece": options.piece, "threads": options.threads, "runs": options.runs,
            "tokens": {"fovea": options.tokens, "llama.cpp": options.llama_tokens},
            "tokens_per_second": rates, "best_rival": best,
            "ratio": round(middle["fovea"] / middle[best], 2)}


print(json.dumps(check() if options.check else compare(), indent=1))
