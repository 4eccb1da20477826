"""Planted facts in book text: how many are answered, with exact search, the "auto" index and dense
attention, and how often the passage that holds a fact is among the first sources.

  python3 bench/planted_facts.py --data DATA [--tokens 262144] [--facts 64]

The memory is made by one process and read by others, and kept in --work: a run with the same
--tokens, --facts and --seed asks it again. No re-reading. Facts: kinds and words of the default
adapter's training generator (common.py), other combinations. From 500,000 tokens on the books are
those of its training, since the others are not enough.
"""
import json
import os
import random

import common

options = common.arguments(__doc__, tokens=262144, facts=64, seed=5, modes="exact,approximate,dense",
                           top_k=16)
rng = random.Random(options.seed)
facts = common.make_facts(rng, options.facts)

memory = os.path.join(options.work, f"facts-{options.tokens}-{options.facts}-{options.seed}")
# About 4.3 bytes a token: cut to the wanted number of tokens with the real tokenizer.
text = common.book_text(options, int(options.tokens * 5), held_out=options.tokens < 500000)
estimate = int(options.tokens * 4.35)
text, ranges = common.plant(text[:estimate], [f.sentence for f in facts], rng)
path = os.path.join(options.work, "facts.txt")
with open(path, "w", encoding="utf-8") as f:
    f.write(text)
ingested, seconds = common.ingest(options, memory, path)  # of a text that is there already: at once

figures = {"bench": "planted_facts",
           "tokens": common.fovea(options, "stats", "--memory", memory)[-1]["tokens"],
           "facts": len(facts)}
if ingested["tokens_per_second"] >= 1:  # otherwise nothing was encoded
    figures |= {"ingest_seconds": round(seconds, 1),
                "ingest_tokens_per_second": round(ingested["tokens_per_second"], 1)}
questions = [f.question for f in facts]
for mode in options.modes.split(","):
    results = common.ask(options, memory, questions, "--mode", mode, "--reread", "0", "--top-k",
                         str(options.top_k), "--max-tokens", "24", "--sources", "3")
    right = [common.contains(r["answer"], f.answer) for r, f in zip(results, facts)]
    named = [any(s["start"] <= begin and end <= s["end"] or s["start"] < end and begin < s["end"]
                 for s in r["sources"][:3])
             for r, (begin, end) in zip(results, ranges)]
    by_kind = {}
    for f, ok in zip(facts, right):
        hit, total = by_kind.get(f.kind, (0, 0))
        by_kind[f.kind] = (hit + ok, total + 1)
    figures[mode] = {
        "answered": round(sum(right) / len(right), 4),
        "source_in_first_3": round(sum(named) / len(named), 4),
        "by_kind": {k: f"{h}/{n}" for k, (h, n) in sorted(by_kind.items())},
        "decode_ms_per_token": round(common.median(
            [r["timing"]["decode_ms_per_token"] for r in results]), 2),
        "prefill_ms": round(common.median([r["timing"]["prefill_ms"] for r in results]), 1),
    }
print(json.dumps(figures, indent=1))
