"""Answering questions about 410 sections of fairy tales in one memory: F1 of every way to answer.

  python3 bench/fairytale.py --data DATA [--questions 300] [--jobs 1]

Variants: closed book; memory alone; the text of 1 or 3 passages re-read, found by attention, BM25 or
both, each with the memory on and off while answering; the right section in the prompt (no memory);
"shipped": the defaults. --only "bm25 1 off,shipped" runs some. --jobs runs variants side by side (F1
does not depend on it; timings would).
"""
import concurrent.futures
import json
import os
import random
import shutil
import sys

import common

options = common.arguments(__doc__, questions=300, seed=1, jobs=1, only="", max_tokens=40)
records = list(common.read_zst(os.path.join(options.data, "qa/fairytaleqa-val.jsonl.zst")))
sections = list(dict.fromkeys(r["context"] for r in records))
ids = {context: f"section-{i}" for i, context in enumerate(sections)}
path = os.path.join(options.work, "fairytales.jsonl")
with open(path, "w", encoding="utf-8") as f:
    for context in sections:
        f.write(json.dumps({"id": ids[context], "text": context}) + "\n")
memory = os.path.join(options.work, "fairytales")
if not os.path.exists(os.path.join(memory, "CURRENT")):
    shutil.rmtree(memory, ignore_errors=True)
    common.ingest(options, memory, path)

sample = random.Random(options.seed).sample(records, options.questions)
questions = [" ".join(r["question"].split()) for r in sample]


def score(results):
    return round(100 * sum(common.f1(r["answer"], s["answers"])
                           for r, s in zip(results, sample)) / len(sample), 2)


def found(results, field, n):
    """Share of questions whose section is among the first n sources."""
    return round(100 * sum(any(s["text"].strip() in r["context"] or r["context"] in s["text"]
                               for s in result[field][:n])
                           for result, r in zip(results, sample)) / len(sample), 1)


def oracle():
    results = []
    for r, question in zip(sample, questions):
        results += common.fovea(options, "ask", "--memory", memory, "--no-memory", "--reread", "0",
                                "--max-tokens", str(options.max_tokens),
                                r["context"].strip() + "\n\n" + question)
    return {"f1": score(results)}


def variant(*args):
    def run():
        results = common.ask(options, memory, questions, "--max-tokens", str(options.max_tokens),
                             "--sources", "3", *args)
        row = {"f1": score(results),
               "prefill_ms": round(common.median([r["timing"]["prefill_ms"] for r in results]), 1),
               "section_in_first_source": found(results, "sources", 1),
               "section_in_first_3_sources": found(results, "sources", 3)}
        return row
    return run


variants = {"closed book": variant("--no-memory", "--reread", "0"),
            "memory alone": variant("--reread", "0")}
for n in (1, 3):
    for by in ("attention", "bm25", "both"):
        for on in ("on", "off"):
            variants[f"{by} {n} {on}"] = variant("--reread", str(n), "--reread-by", by,
                                                 "--reread-memory", on)
variants["right section in the prompt"] = oracle
variants["shipped"] = variant()
if options.only:
    variants = {name: run for name, run in variants.items() if name in options.only.split(",")}

with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
    futures = {name: pool.submit(run) for name, run in variants.items()}
    figures = {"bench": "fairytale", "questions": len(sample), "sections": len(sections)}
    for name, future in futures.items():
        figures[name] = future.result()
        print(name, figures[name], file=sys.stderr, flush=True)
print(json.dumps(figures, indent=1))
