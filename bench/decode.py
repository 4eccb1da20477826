"""Tokens/s of an answer: single-token steps of fovea and of llama.cpp on the same GGUF file.

  python3 bench/decode.py --llama-python VENV/bin/python [--tokens 96] [--runs 9] [--threads 2]

llama.cpp comes from the package llama-cpp-python in the environment of --llama-python; it is
measured in each configuration: the file as it is, requantised by llama.cpp to Q4_0 and to F16, flash
attention on and off. fovea runs with its default adapter and without one. Both start from the same
short prompt, choose greedily, and leave the prompt out of the time. bench/context_rate.py compares a
memory with a context of the same length.

The runs of all sides take turns, so that what else the machine does hits all alike; medians of
--runs. "ratio" is fovea without an adapter over llama.cpp's best configuration.
"""
import json
import os
import statistics

import common
import llama_decode

PROMPT = "Once upon a time, in a small village by the sea, there lived"


class Fovea:
    def __init__(self, options, name, adapter):
        self.options = options
        self.memory = os.path.join(options.work, "decode-" + name)
        if not os.path.isdir(self.memory):
            arguments = ["--adapter", adapter] if adapter else []
            common.fovea(options, "ingest", "--memory", self.memory, "--model", options.model,
                         *arguments, "-", stdin="A word.")

    def run(self):
        result, = common.fovea(self.options, "ask", "--memory", self.memory, "--no-memory", "--raw",
                               "--max-tokens", str(self.options.tokens), PROMPT)
        n_tokens = result["usage"]["completion_tokens"]
        assert n_tokens == self.options.tokens, f"the answer ended after {n_tokens} tokens"
        return 1000 / result["timing"]["decode_ms_per_token"]


options = common.arguments(__doc__, llama_python="", tokens=96, runs=9)
path = common.model_path(options)
options.threads = options.threads or len(os.sched_getaffinity(0))
sides = {
    "fovea": Fovea(options, "plain", "layers:9,15,21"),
    "fovea, adapter": Fovea(options, "adapter", options.adapter),
}
if options.llama_python:
    for name, file in llama_decode.model_files(options.llama_python, path, options.work).items():
        for flash in (False, True):
            sides[f"llama.cpp, {name}, flash attention {'on' if flash else 'off'}"] = (
                llama_decode.Llama(options.llama_python, model=file, threads=options.threads,
                                   flash=flash, cache="F16", prompt=PROMPT,
                                   n_tokens=options.tokens))

rates = common.take_turns(sides, options.runs)

figures = {"bench": "decode", "threads": options.threads, "tokens": options.tokens,
           "runs": options.runs, "tokens_per_second": {}}
for name, values in rates.items():
    figures["tokens_per_second"][name] = {"median": round(statistics.median(values), 1),
                                          "min": round(min(values), 1),
                                          "max": round(max(values), 1)}
medians = {name: statistics.median(values) for name, values in rates.items()}
rivals = {name: value for name, value in medians.items() if name.startswith("llama.cpp")}
if rivals:
    best = max(rivals, key=rivals.get)
    figures["best_rival"] = best
    figures["ratio"] = round(medians["fovea"] / rivals[best], 3)
    figures["ratio_with_adapter"] = round(medians["fovea, adapter"] / rivals[best], 3)
print(json.dumps(figures, indent=1))
