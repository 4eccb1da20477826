"""Tokens/s of an answer: single-token steps of fovea and of llama.cpp on the same GGUF file.

  python3 bench/decode.py --llama-python VENV/bin/python [--tokens 96] [--runs 9] [--threads 2]

llama.cpp comes from the package llama-cpp-python in the environment of --llama-python; it is
measured in each configuration: the file as it is, requantised by llama.cpp to Q4_0 and to F16, flash
attention on and off. fovea runs with its default adapter and without one. Both start from the same
short prompt, choose greedily, and leave the prompt out of the time. --depth N puts N tokens of
filler before the prompt on llama.cpp's side (fovea's side of such a comparison is a memory).

The runs of all sides take turns, so that what else the machine does hits all alike; medians of
--runs. "ratio" is fovea without an adapter over llama.cpp's best configuration.
"""
import json
import os
import statistics
import subprocess
import sys

PROMPT = "Once upon a time, in a small village by the sea, there lived"
FILLER = "The quick brown fox jumps over the lazy dog while the sun sets behind the hills. "
FTYPES = {"Q4_0": 2, "F16": 1}  # llama_ftype


# --- llama.cpp's side: a process of its own interpreter, one line of JSON a command ---
def llama_requantise(source, target, ftype):
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), params) != 0:
        raise SystemExit(f"{source}: llama.cpp cannot requantise it")


def llama_worker(path, n_threads, flash, depth, n_tokens):
    import ctypes
    import time

    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    model = llama_cpp.llama_model_load_from_file(path.encode(),
                                                 llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = depth + n_tokens + 512
    params.n_threads = params.n_threads_batch = n_threads
    params.flash_attn_type = (llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else
                              llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
    context = llama_cpp.llama_init_from_model(model, params)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    greedy = llama_cpp.llama_sampler_init_greedy()
    memory = llama_cpp.llama_get_memory(context)

    def tokenize(text):
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        return list(ids[:llama_cpp.llama_tokenize(vocabulary, data, len(data), ids, len(ids), True,
                                                  False)])

    def evaluate(ids):
        for i in range(0, len(ids), params.n_batch):
            part = ids[i:i + params.n_batch]
            array = (llama_cpp.llama_token * len(part))(*part)
            if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(part))):
                raise SystemExit("llama_decode failed")

    prompt = tokenize(PROMPT)
    filler = tokenize(FILLER * (depth // 8 + 1))[:depth]
    if filler:
        evaluate(filler)
    one = (llama_cpp.llama_token * 1)()
    for _ in sys.stdin:
        llama_cpp.llama_memory_seq_rm(memory, 0, depth, -1)
        evaluate(prompt)
        token = llama_cpp.llama_sampler_sample(greedy, context, -1)
        start = time.perf_counter()
        for _ in range(n_tokens - 1):
            one[0] = token
            llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1))
            token = llama_cpp.llama_sampler_sample(greedy, context, -1)
        seconds = time.perf_counter() - start
        print(json.dumps((n_tokens - 1) / seconds), flush=True)


if len(sys.argv) > 1 and sys.argv[1] == "--llama-worker":
    llama_worker(sys.argv[2], *(int(a) for a in sys.argv[3:]))
    sys.exit()
if len(sys.argv) > 1 and sys.argv[1] == "--llama-requantise":
    llama_requantise(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.exit()

import common  # noqa: E402


class Llama:
    def __init__(self, options, path, flash):
        self.process = subprocess.Popen(
            [options.llama_python, __file__, "--llama-worker", path, str(threads),
             str(int(flash)), str(options.depth), str(options.tokens)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


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


def model_path(options):
    if os.path.exists(options.model):
        return options.model
    for model in common.fovea(options, "model", "list"):
        for entry in model.get("models", [model]):
            if entry.get("name") == options.model:
                return entry["path"]
    sys.exit(f"{options.model}: no such model")


options = common.arguments(__doc__, llama_python="", tokens=96, runs=9, depth=0)
threads = options.threads or len(os.sched_getaffinity(0))
options.threads = 0  # `model list` has no such option
path = model_path(options)
options.threads = threads
sides = {
    "fovea": Fovea(options, "plain", "layers:9,15,21"),
    "fovea, adapter": Fovea(options, "adapter", options.adapter),
}
if options.llama_python:
    files = {"as it is": path}
    for name, ftype in FTYPES.items():
        files[name] = os.path.join(options.work, f"decode-{name}.gguf")
        if not os.path.exists(files[name]):
            subprocess.run([options.llama_python, __file__, "--llama-requantise", path, files[name],
                            str(ftype)], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    for name, file in files.items():
        for flash in (False, True):
            sides[f"llama.cpp, {name}, flash attention {'on' if flash else 'off'}"] = Llama(
                options, file, flash)

rates = {name: [] for name in sides}
for run in range(options.runs + 1):
    for name, side in sides.items():
        rate = side.run()
        if run > 0:  # the first one warms up
            rates[name].append(rate)

figures = {"bench": "decode", "threads": threads, "tokens": options.tokens, "depth": options.depth,
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
