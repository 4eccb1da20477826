"""Answers to 150 questions on 36 ordinary documents of seven kinds, by every way to answer.

  python3 bench/natural.py [--ways "default,bm25 1 off,oracle"] [--half reported|tuning|all|wide]

Ways: closed book; the memory alone; 1 or 3 passages read again, found by attention, BM25 or both,
each with the memory on and off while answering; minilm: 1 or 3 passages found by a sentence encoder
(bench/dense_retrieval.py, named with --ways alone); oracle: the right passage in the prompt, no memory;
default: no option. Documents come from packages (bench/natural_documents.py) and bench/natural/.

Questions are split by a hash of their text: what is tuned is tuned on --half tuning, what is told is
measured on --half reported. --half wide has 333 other questions on 47 other documents
(bench/natural_wide.py): for tuning alone, never told as a result; their memory has none of the rest.

Each answer is appended to a JSON-lines file in --work, and a run that was interrupted goes on where it
was; other binaries, models and options have their own lines.
--model qwen-0.5b or qwen-1.5b fetches that model; without memory layers, it has the ways with BM25.
"""
import collections
import hashlib
import json
import os
import re
import subprocess
import sys
import time

import common
import dense_retrieval
import natural_documents
import natural_wide

PASSAGE_BYTES = 700  # of the oracle's passage: about as long as a passage that is read again

WAYS = {"closed book": ["--no-memory", "--reread", "0"], "memory alone": ["--reread", "0"]}
for by in ("attention", "bm25", "both"):
    for n in (1, 3):
        for memory in ("on", "off"):  # while the answer is made; passages are found with it
            WAYS[f"{by} {n} {memory}"] = ["--reread", str(n), "--reread-by", by,
                                          "--reread-memory", memory]
WAYS["oracle"] = ["--no-memory", "--reread", "0"]
WAYS["default"] = []
DENSE = {"minilm 1": 1, "minilm 3": 3}  # passages that the bench finds and puts into the prompt
HALVES = ("reported", "tuning", "all", "wide")  # all: both halves


def read_questions(wide=False):
    name = "wide/questions.jsonl" if wide else "questions.jsonl"
    with open(os.path.join(natural_documents.HERE, name), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def half_of(question):
    digest = hashlib.sha256(question["question"].encode()).digest()
    return "reported" if digest[0] % 2 else "tuning"


def locate(question, text):
    """The byte range of the supporting text, and a passage around it that starts and ends at a space.
    Exits if the text does not hold the quote or the answer."""
    quote = re.search(r"\s+".join(map(re.escape, question["quote"].split())), text)
    if not quote:
        sys.exit(f"{question['document']}: does not hold \"{question['quote']}\"")
    if common.normalize(question["answers"][0]) not in common.normalize(quote[0]):
        sys.exit(f"{question['document']}: \"{question['quote']}\" does not hold the answer "
                 f"\"{question['answers'][0]}\"")
    spare = max(0, PASSAGE_BYTES - len(quote[0])) // 2
    begin, end = max(0, quote.start() - spare), min(len(text), quote.end() + spare)
    if begin > 0:
        begin = max(text.find(" ", begin, quote.start()), begin)
    if end < len(text):
        end = max(text.rfind(" ", quote.end(), end), quote.end())
    passage = text[begin:end].strip()
    start = len(text[:quote.start()].encode())
    return start, start + len(quote[0].encode()), passage


class Memory:
    """The documents of a table in a memory of the model: ids by name, and texts as they were read."""

    def __init__(self, options, name, table):
        self.folder = os.path.join(options.work, f"natural-{name}")
        found = natural_documents.documents(options.cache, table)
        paths = [path for path, kind in found.values()]
        args = ["--adapter", options.adapter] if options.adapter else []
        (result,) = common.fovea(options, "ingest", "--memory", self.folder, "--model",
                                 options.model, *args, *paths)
        self.tokens, self.seconds = result["tokens"], result["seconds"]
        self.ids = {os.path.basename(d["source"]): d["id"] for d in result["documents"]}
        shown = common.fovea(options, "docs", "show", "--memory", self.folder, *self.ids.values())
        texts = {d["id"]: d["text"] for d in shown}
        self.texts = {document: texts[i] for document, i in self.ids.items()}


class Results:
    """Answers by (way, question), each a line of a file; `key` tells what they were made with."""

    def __init__(self, path, key):
        self.path, self.key, self.rows = path, key, {}
        if os.path.exists(path):
            with open(path, "r+b") as f:
                lines = f.read().splitlines(keepends=True)
                # The last line of a run that was killed may be torn.
                if lines and not lines[-1].endswith(b"\n"):
                    f.truncate(f.tell() - len(lines.pop()))
            for row in map(json.loads, lines):
                if row["key"] == key:
                    self.rows[row["way"], row["question"]] = row

    def add(self, way, question, result, seconds, support):
        named = [s["document"] == support[0] and s["start"] < support[2] and support[1] < s["end"]
                 for s in result["sources"][:3]]
        row = {"key": self.key, "way": way, "question": question["question"],
               "answer": result["answer"], "seconds": round(seconds, 3),
               "found": any(named), "prompt_tokens": result["usage"]["prompt_tokens"]}
        self.rows[way, question["question"]] = row
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def lines_of(command, stdin):
    """JSON objects that a process prints, each with the seconds since the one before."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:
        process.stdin.write(stdin)  # fewer bytes than a pipe holds
        process.stdin.close()
        last = time.time()
        for line in process.stdout:
            now = time.time()
            yield json.loads(line), now - last
            last = now
        message = process.stderr.read()
    if process.returncode != 0:
        raise RuntimeError(message.strip())


def dense_passages(memory, options, questions):
    """By question: the three best passages of the sentence encoder as sources, bytes of their
    document, and the seconds that finding them took."""
    retriever = dense_retrieval.Retriever(memory.texts, options.cache)
    found = {}
    for q in questions:
        begin = time.time()
        passages = retriever.find(q["question"], 3)
        found[q["question"]] = ([{"document": memory.ids[name],
                                  "start": len(memory.texts[name][:first].encode()),
                                  "end": len(memory.texts[name][:last].encode()),
                                  "text": memory.texts[name][first:last].strip()}
                                 for name, first, last in passages], time.time() - begin)
    return found


def answer(options, memory, way, questions, results, located):
    """Asks what is not answered yet. One process for all questions, except where the bench writes
    passages into the prompt, which have line ends."""
    left = [q for q in questions if (way, q["question"]) not in results.rows]
    command = [options.fovea, "ask", "--memory", memory.folder, "--json", "--quiet", "--sources", "3",
               "--max-tokens", str(options.max_tokens), *WAYS.get(way, WAYS["oracle"])]
    if options.threads:
        command += ["--threads", str(options.threads)]
    if options.device != "cpu":
        command += ["--device", options.device]
    passages = {}  # by question, with the seconds of finding them
    if way == "oracle":
        passages = {q["question"]: ([{"text": located[q["question"]][2]}], 0.0) for q in left}
    elif way in DENSE:
        passages = dense_passages(memory, options, left)
    n = DENSE.get(way, 1)

    def prompt(q):
        return "\n\n".join([p["text"] for p in passages[q["question"]][0][:n]] + [q["question"]])

    if passages:
        stream = ((q, *pair) for q in left for pair in lines_of(command + ["--", prompt(q)], ""))
    else:
        stdin = "".join(q["question"] + "\n" for q in left)
        stream = ((q, *pair) for q, pair in
                  zip(left, lines_of(command + ["-"], stdin) if left else ()))
    for q, result, seconds in stream:
        if "error" in result:
            raise RuntimeError(result["error"])
        start, end, _ = located[q["question"]]
        # Opening is not part of an answer.
        seconds -= result["timing"]["open_ms"] / 1000 if passages or q is left[0] else 0
        if way in DENSE:
            result["sources"], seconds_to_find = passages[q["question"]]
            seconds += seconds_to_find
        results.add(way, q, result, seconds, (memory.ids[q["document"]], start, end))


def figures(rows, questions):
    """Of the questions that are answered."""
    pairs = [(rows[q["question"]], q) for q in questions if q["question"] in rows]
    if not pairs:
        return None

    def percent(values):
        return round(100 * sum(values) / len(pairs), 1)

    def holds(row, question):
        """Whole words of the answer, so that 3 is not found in 36."""
        words = f" {common.normalize(row['answer'])} "
        return any(f" {common.normalize(a)} " in words for a in question["answers"])

    return {"questions": len(pairs),
            "f1": percent([common.f1(row["answer"], q["answers"]) for row, q in pairs]),
            "contained": percent([holds(row, q) for row, q in pairs]),
            "found": percent([row["found"] for row, q in pairs]),
            "seconds": round(common.median([row["seconds"] for row, q in pairs]), 2)}


def summary(results, questions, ways):
    table, kinds = {}, collections.defaultdict(dict)
    for way in ways:
        rows = {question: row for (w, question), row in results.rows.items() if w == way}
        row = figures(rows, questions)
        if not row:
            continue
        table[way] = row
        for kind in sorted({q["kind"] for q in questions}):
            part = figures(rows, [q for q in questions if q["kind"] == kind])
            if part:
                kinds[kind][way] = part
    return table, kinds


def ratios(table):
    """The default against the best single way and against BM25 without memory, for both scores; only
    of ways with as many questions as the default."""
    if "default" not in table:
        return {}
    default = table["default"]
    others = {way: row for way, row in table.items()
              if way not in ("default", "oracle") and row["questions"] == default["questions"]}
    result = {}
    for score in ("f1", "contained"):
        for name, against in (("best single way", list(others)),
                              ("bm25 without memory", ["bm25 1 off", "bm25 3 off"])):
            measured = [way for way in against if way in others]
            if measured:
                best = max(measured, key=lambda way: others[way][score])
                if others[best][score] > 0:
                    result[f"{score} against {name}"] = {
                        "ratio": round(default[score] / others[best][score], 3), "way": best}
    return result


def markdown(table, kinds, failed):
    lines = ["| way | F1 | answer contained | passage in first 3 | questions | seconds |",
             "|---|---:|---:|---:|---:|---:|"]
    for way, row in table.items():
        found = "" if way in ("oracle", "closed book") else row["found"]
        lines.append(f"| {way} | {row['f1']} | {row['contained']} | {found} | {row['questions']} "
                     f"| {row['seconds']} |")
    lines += [f"| {way} | not measured: {why} | | | | |" for way, why in failed.items()]
    lines += ["", "F1 / answer contained by kind:", "", "| way | " + " | ".join(kinds) + " |",
              "|---|" + "---:|" * len(kinds)]
    for way in table:
        cells = [f"{part[way]['f1']} / {part[way]['contained']}" if way in part else ""
                 for part in kinds.values()]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    options = common.arguments(__doc__, ways=",".join(WAYS), half="reported", limit=0, stride=1,
                               max_tokens=24, cache=natural_documents.CACHE, only_table=0)
    os.makedirs(options.cache, exist_ok=True)
    ways = [way.strip() for way in options.ways.split(",")]
    if unknown := [way for way in ways if way not in WAYS and way not in DENSE]:
        sys.exit(f"no way is called {unknown}: want some of {', '.join([*WAYS, *DENSE])}")
    if options.model in natural_documents.MODELS:
        options.model = natural_documents.model(options.model, options.cache)
    name = os.path.splitext(os.path.basename(options.model))[0]
    if options.half not in HALVES:
        sys.exit(f"no half is called {options.half}: want one of {', '.join(HALVES)}")
    wide = options.half == "wide"
    questions = [q for q in read_questions(wide) if options.half in ("all", "wide", half_of(q))]
    questions = questions[::options.stride][:options.limit or None]

    file = name + "-wide" if wide else name  # of the memory and of the answers
    memory = Memory(options, file, natural_wide.DOCUMENTS if wide else natural_documents.DOCUMENTS)
    located = {q["question"]: locate(q, memory.texts[q["document"]]) for q in questions}
    (stats,) = common.fovea(options, "stats", "--memory", memory.folder)
    # The fingerprint is of model and adapter.
    key = [natural_documents.sha256(options.fovea)[:16], stats["fingerprint"], options.max_tokens]
    results = Results(os.path.join(options.work, f"natural-{file}.jsonl"), key)
    failed = {}
    for way in [] if options.only_table else ways:
        try:
            answer(options, memory, way, questions, results, located)
        except RuntimeError as error:
            failed[way] = str(error)
        row = figures({q: r for (w, q), r in results.rows.items() if w == way}, questions)
        print(way, row or failed.get(way), file=sys.stderr, flush=True)

    table, kinds = summary(results, questions, ways)
    print(markdown(table, kinds, failed), file=sys.stderr)
    print(json.dumps({"bench": "natural", "model": name, "half": options.half,
                      "documents": len(memory.ids), "tokens": memory.tokens, "ways": table,
                      "kinds": kinds, "ratios": ratios(table), "failed": failed}, indent=1))


if __name__ == "__main__":
    main()
