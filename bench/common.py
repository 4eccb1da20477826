"""What the quality benches share: running the fovea command line, book text, planted facts, scores.

Standard library only. Each bench takes --fovea (the binary), --data (a folder with the data sets
described in bench/README.md) and --out, and prints one JSON object with its figures.
"""
import argparse
import collections
import json
import os
import random
import re
import string
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def arguments(description, **defaults):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--fovea", default=os.path.join(ROOT, "build/release/bin/fovea"))
    parser.add_argument("--data", default=os.path.join(ROOT, "bench/data"))
    parser.add_argument("--work", default="bench-work", help="folder for memories and texts")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--adapter", default="", help="folder; empty: the model's own")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="of ingest and answers: cpu or cuda[:N]")
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), default=value, type=type(value))
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    return options


def read_zst(path):
    """Records of a .jsonl.zst file, one at a time."""
    with subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE, text=True,
                          encoding="utf-8") as process:
        for line in process.stdout:
            yield json.loads(line)
        process.stdout.close()


def fovea(options, *args, stdin=None, check=True):
    """Runs the command line with --json; returns the list of JSON objects it printed."""
    command = [options.fovea, *args, "--json", "--quiet"]
    if args[0] not in ("docs", "model", "stats"):  # those have no such options
        if options.threads:
            command += ["--threads", str(options.threads)]
        if options.device != "cpu":
            command += ["--device", options.device]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, encoding="utf-8")
    if check and result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {result.returncode}\n{result.stderr}")
    return [json.loads(line) for line in result.stdout.splitlines() if line.strip()]


def model_path(options):
    """The file of --model: a path, or a model that `fovea model list` knows."""
    if os.path.exists(options.model):
        return options.model
    for model in fovea(options, "model", "list"):
        for entry in model.get("models", [model]):
            if entry.get("name") == options.model:
                return entry["path"]
    sys.exit(f"{options.model}: no such file, and no model of `fovea model list`")


def ask(options, memory, questions, *args):
    """One process for all questions; their results in order."""
    stdin = "".join(q.replace("\n", " ") + "\n" for q in questions)
    results = fovea(options, "ask", "--memory", memory, *args, "-", stdin=stdin)
    assert len(results) == len(questions), f"{len(results)} answers to {len(questions)} questions"
    return results


def book_text(options, n_bytes, seed=0, held_out=True):
    """Text of whole books, n_bytes of it; held_out: of the last 18 books of the shuffled list, which
    the default adapter's training left out (the shuffle is the training's own)."""
    books = list(read_zst(os.path.join(options.data, "books-train.jsonl.zst")))
    random.Random(seed).shuffle(books)
    books = books[-18:] if held_out else books[:-18]
    text = "\n\n".join(book["text"] for book in books)
    assert len(text) >= n_bytes, "not enough book text"
    return text[:n_bytes]


# --- planted facts: kinds and words of the generator that trained the default adapter ---
ADJECTIVES = ("red old quiet brave golden hidden silver narrow distant gentle broken frozen ancient "
              "hollow bitter amber crimson velvet rusty humble lively noble wooden sacred").split()
NOUNS = ("river tower garden lantern harbor mirror bridge violin forest castle compass orchard kettle "
         "falcon meadow anchor saddle canyon basket temple ribbon glacier parrot cellar wagon pillow "
         "engine island hammer valley").split()
FIRST_NAMES = ("Anna Boris Clara David Elena Frank Greta Hugo Irene Jacob Karin Louis Maria Nils Olga "
               "Peter Quinn Rosa Simon Tessa Ulrich Vera Walter Xenia Yusuf Zelda Martin Helen Oscar "
               "Lydia").split()
LAST_NAMES = ("Abbott Baxter Carver Dalton Ellis Foster Granger Harlow Ingram Jarvis Keller Lawson "
              "Mercer Norton Osborn Parker Quincy Radford Sawyer Turner Underwood Vance Whitaker York "
              "Zimmer").split()
OBJECTS = ("key ring letter map coin watch book knife flute painting medal mask scarf lamp bell statue "
           "dagger necklace journal telescope").split()
PLACES = ("kitchen attic library stable chapel cellar bakery station theatre museum market school "
          "hospital lighthouse barn cabin office workshop tavern courtyard").split()

Fact = collections.namedtuple("Fact", "kind sentence question answer")


def make_fact(rng):
    """One fact of the six kinds."""
    number = "".join(rng.choice(string.digits) for _ in range(rng.choice([3, 4, 5, 6, 7])))
    thing = f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
    person = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
    kind = rng.choice(["number", "pass key", "place", "hex", "word", "phone"])
    if kind == "number":
        return Fact(kind, f"The special magic number for {thing} is: {number}.",
                    f"What is the special magic number for {thing}?", number)
    if kind == "pass key":
        return Fact(kind, f"The pass key of {person} is {number}. Remember it. "
                          f"{number} is the pass key of {person}.",
                    f"What is the pass key of {person}?", number)
    if kind == "place":
        item, place = rng.choice(OBJECTS), rng.choice(PLACES)
        return Fact(kind, f"{person} left the {item} in the {place}.",
                    f"Where did {person} leave the {item}?", f"the {place}")
    if kind == "hex":
        key, value = ("".join(rng.choice("0123456789abcdef") for _ in range(8)) for _ in range(2))
        return Fact(kind, f'"{key}": "{value}"', f'What is the value of "{key}"?', value)
    if kind == "word":
        word = f"{rng.choice(ADJECTIVES)} {rng.choice(OBJECTS)}"
        return Fact(kind, f"The secret word of the {thing} is {word}.",
                    f"What is the secret word of the {thing}?", word)
    return Fact(kind, f"The phone number of {person} is {number}.",
                f"What is the phone number of {person}?", number)


def make_facts(rng, n_facts):
    """Facts with different questions."""
    facts = {}
    while len(facts) < n_facts:
        fact = make_fact(rng)
        facts.setdefault(fact.question, fact)
    return list(facts.values())


def plant(text, sentences, rng):
    """Puts each sentence at a random space of the text; returns the text and the byte range of each."""
    spaces = [m.start() for m in re.finditer(" ", text)]
    places = sorted(rng.sample(spaces, len(sentences)))
    pieces, ranges, last, size = [], [], 0, 0
    for place, sentence in zip(places, sentences):
        before = text[last:place]
        size += len(before.encode()) + 1
        ranges.append((size, size + len(sentence.encode())))
        size += len(sentence.encode())
        pieces += [before, " ", sentence]
        last = place
    pieces.append(text[last:])
    return "".join(pieces), ranges


# --- scores ---
def normalize(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(answer, golds):
    """Best word F1 (SQuAD) of an answer against its references."""
    best = 0.0
    for gold in golds:
        a, g = normalize(answer).split(), normalize(gold).split()
        common = sum((collections.Counter(a) & collections.Counter(g)).values())
        if common:
            best = max(best, 2 * common / (len(a) + len(g)))
    return best


def contains(answer, gold):
    return gold.lower() in answer.lower()


def median(values):
    ordered = sorted(values)
    n = len(ordered)
    return (ordered[n // 2] + ordered[(n - 1) // 2]) / 2 if n else float("nan")


def ingest(options, memory, path, *args):
    """Ingests a file into a new or existing memory, returns ingest's JSON and the wall seconds."""
    if options.adapter:
        args += ("--adapter", options.adapter)
    start = time.time()
    result = fovea(options, "ingest", "--memory", memory, "--model", options.model, *args, path)
    return result[-1], time.time() - start


def take_turns(sides, n_runs):
    """Rates of each side's run(), {name: [n_runs]}: one run of each in every round, so that what else
    the machine does hits all alike; a round before them warms up."""
    rates = {name: [] for name in sides}
    for run in range(n_runs + 1):
        for name, side in sides.items():
            rate = side.run()
            if run > 0:
                rates[name].append(rate)
    return rates
