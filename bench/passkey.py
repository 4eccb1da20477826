"""Pass keys in filler: how many of 20 are answered at a memory of 262,144 tokens.

  python3 bench/passkey.py [--tokens 262144] [--keys 20]

Landmark Attention's prompt: one pass key at a random place of repeated filler, asked by continuing
"What is the pass key? The pass key is". Each key is a new version of the same document, so that only
the windows around the old and the new place are encoded; the figure `encoded_windows` shows it.
"""
import json
import os
import random
import re
import shutil

import common

options = common.arguments(__doc__, tokens=262144, keys=20, seed=3, mode="approximate")
HEAD = ("There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
        "them. I will quiz you about the important information there.\n")
FILLER = ("The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ")
TOKENS_PER_FILLER = 23.9
rng = random.Random(options.seed)
memory = os.path.join(options.work, "passkey")
shutil.rmtree(memory, ignore_errors=True)
path = os.path.join(options.work, "passkey.txt")
repeats = int(options.tokens / TOKENS_PER_FILLER)

right, encoded, tokens, answers = 0, [], 0, []
for _ in range(options.keys):
    key = rng.randint(1, 50000)
    place = rng.randrange(repeats)
    needle = f"\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
    with open(path, "w", encoding="utf-8") as f:
        f.write(HEAD + FILLER * place + needle + FILLER * (repeats - place))
    result, _ = common.ingest(options, memory, path)
    document = result["documents"][0]
    encoded.append(document["encoded_windows"])
    tokens = document["tokens"]
    answer = common.fovea(options, "ask", "--memory", memory, "--raw", "--reread", "0", "--mode",
                          options.mode, "--max-tokens", "8",
                          "\nWhat is the pass key? The pass key is")[-1]["answer"]
    found = re.findall(r"\d+", answer)[:1] == [str(key)]
    right += found
    answers.append([key, answer.strip()])
print(json.dumps({"bench": "passkey", "tokens": tokens, "mode": options.mode, "right": right,
                  "keys": options.keys, "encoded_windows": encoded, "answers": answers}))
