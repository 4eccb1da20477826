"""Tokens/s of `fovea ingest` against llama.cpp's prompt evaluation, on the same machine, threads and
book text.

  python3 bench/ingest_rate.py --data DATA --model model.gguf --llama-python venv/bin/python

llama.cpp evaluates 8,192 tokens; its best configuration counts: the file as it is, its requantisations
to Q4_0 and F16, flash attention on and off, each tried once; then both sides take turns, and the
medians are compared. The ingest's rate is that of the whole command: model, index and disk included.
--model has to be a file, and --llama-python a Python with the package llama-cpp-python.
"""
import json
import os
import shutil
import subprocess
import sys

import common

options = common.arguments(__doc__, tokens=60000, prompt_tokens=8192, repeats=3, llama_python="",
                           precisions="auto")
if not options.llama_python or not os.path.isfile(options.model):
    sys.exit("ingest_rate.py: give --llama-python (a Python with llama-cpp-python) and --model FILE")
threads = options.threads or os.cpu_count()
options.threads = threads
text = os.path.join(options.work, "ingest-rate.txt")
with open(text, "w", encoding="utf-8") as f:
    f.write(common.book_text(options, int(options.tokens * 4.35)))

llama = subprocess.Popen([options.llama_python, os.path.join(common.ROOT, "bench/llama_prompt.py")],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         text=True)


def call_llama(**request):
    llama.stdin.write(json.dumps(request) + "\n")
    llama.stdin.flush()
    line = llama.stdout.readline()
    if not line:
        sys.exit("ingest_rate.py: llama_prompt.py ended; run it by hand to see why")
    return json.loads(line)


def llama_rate(model, flash):
    answer = call_llama(model=model, text=text, tokens=options.prompt_tokens, threads=threads,
                        flash=flash)
    return options.prompt_tokens / answer["seconds"]


def fovea_rate(precision):
    memory = os.path.join(options.work, "ingest-rate")
    shutil.rmtree(memory, ignore_errors=True)
    result, _ = common.ingest(options, memory, text, "--precision", precision)
    return result["tokens_per_second"]


models = {"as it is": options.model}
for kind in ("Q4_0", "F16"):
    path = os.path.join(options.work, f"llama-{kind}.gguf")
    if not os.path.exists(path):
        if call_llama(quantize=options.model, to=path, type=kind)["status"] != 0:
            continue
    models[kind] = path
tried = {(name, flash): llama_rate(model, flash)
         for name, model in models.items() for flash in (False, True)}
best = max(tried, key=tried.get)

precisions = options.precisions.split(",")
llama_rates, fovea_rates = [], {p: [] for p in precisions}
for _ in range(options.repeats):
    llama_rates.append(llama_rate(models[best[0]], best[1]))
    for precision in precisions:
        fovea_rates[precision].append(fovea_rate(precision))
llama.stdin.close()
llama.wait()

llama_median = common.median(llama_rates)
figures = {
    "bench": "ingest_rate", "threads": threads,
    "llama": {"prompt_tokens": options.prompt_tokens, "best": list(best),
              "tokens_per_second": round(llama_median, 1),
              "runs": [round(r, 1) for r in llama_rates],
              "tried": {f"{name}, flash {'on' if flash else 'off'}": round(rate, 1)
                        for (name, flash), rate in tried.items()}},
    "fovea": {p: {"tokens": options.tokens, "tokens_per_second": round(common.median(rates), 1),
                  "runs": [round(r, 1) for r in rates],
                  "ratio": round(common.median(rates) / llama_median, 2)}
              for p, rates in fovea_rates.items()},
}
print(json.dumps(figures, indent=1))
