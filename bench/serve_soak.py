"""The server under a long load: many concurrent streams for minutes, the same while a folder is
ingested and indexes are rebuilt; errors, sources that are another question's, the time between
tokens, resident memory (of its own and of mapped files apart) and what the memory held meanwhile.

    python3 bench/serve_soak.py [--streams 64] [--seconds 300] [--alone-seconds 300] [--max-tokens 48]

Each stream has a document of its own, a piece of a novel with a fact in it, and asks for the fact
again and again, in turn:
  as `ask` does by default: over everything, a passage found and read again;
  from the memory alone, within its document, found among the keys that all questions share.
A source of the second that is not its own document, or a first source of the first that is the
document of another stream, is wrong. The folder is ingested over and over, with other text each time
in the place of the former, so that what is stored grows by the first time alone. Standard library
only; prints one JSON object.
"""
import json
import os
import random
import sys
import threading
import time

import common
import serve

FOLDER_FILES = 12
FILE_CHARACTERS = 4000


def novel(name):
    with open(os.path.join(common.ROOT, "examples", name), encoding="utf-8") as file:
        return file.read()


class Asked:
    """A stream's document and its question."""

    def __init__(self, fact, text, path):
        self.fact, self.path = fact, path
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        self.id = None  # of the document, once it is ingested


def make_asked(options):
    """A document for each stream, with equal shares of a novel, and its fact in the middle."""
    rng = random.Random(15)
    text = novel("flatland.txt")
    folder = os.path.join(options.work, "soak-asked")
    os.makedirs(folder, exist_ok=True)
    share = len(text) // options.streams
    asked = []
    for i, fact in enumerate(common.make_facts(rng, options.streams)):
        part = text[i * share:(i + 1) * share]
        middle = part.find("\n", share // 2)
        asked.append(Asked(fact, f"{part[:middle]}\n\n{fact.sentence}\n\n{part[middle:]}\n",
                           os.path.join(folder, f"asked-{i:03}.txt")))
    return folder, asked


class Sources:
    """Counts answers with the right, another stream's, or some other document as their source."""

    def __init__(self, asked):
        self.lock = threading.Lock()
        self.paths = {os.path.realpath(a.path) for a in asked}
        self.counts = {way: {"right": 0, "wrong": 0, "other": 0, "none": 0}
                       for way in ("by_default", "in_document")}
        self.wrong = []

    def add(self, way, own, sources):
        # A question of a document has sources of that alone. Over everything the first one is what
        # was read again.
        paths = [os.path.realpath(source["path"]) for source in sources]
        seen = paths if way == "in_document" else paths[:1]
        own = os.path.realpath(own)
        foreign = [path for path in seen if path != own]
        kind = ("none" if not seen else "right" if not foreign else
                "wrong" if way == "in_document" or any(p in self.paths for p in foreign) else "other")
        with self.lock:
            self.counts[way][kind] += 1
            if kind == "wrong":
                self.wrong.append((way, own, foreign))


class Jobs:
    """Ingests the folder and rebuilds indexes, in turn, as long as it runs."""

    def __init__(self, server):
        self.server = server
        self.done = {}
        self.errors = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def upload(self, round_):
        """A form of all files of the folder: the same names, the paragraphs in another order."""
        paragraphs = novel("a-study-in-scarlet.txt").split("\n\n")
        random.Random(round_).shuffle(paragraphs)
        text = "\n\n".join(paragraphs)
        boundary, body = "soak", []
        for i in range(FOLDER_FILES):
            part = text[i * FILE_CHARACTERS:(i + 1) * FILE_CHARACTERS]
            body.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
                        f'filename="folder-{i:02}.txt"\r\n\r\n{part}\r\n')
        body.append(f"--{boundary}--\r\n")
        connection, response = self.server.request(
            "POST", "/v1/documents", "".join(body).encode(),
            {"Content-Type": f"multipart/form-data; boundary={boundary}"})
        result = json.loads(response.read())
        connection.close()
        return response.status, result

    def run(self):
        round_ = 0
        while not self.stop.is_set():
            for kind in ("ingest", "rebuild"):
                status, job = (self.upload(round_) if kind == "ingest" else
                               self.server.json("POST", "/v1/jobs", {"kind": "rebuild"}))
                if status != 202:
                    self.errors.append(f"{kind}: {status} {job}")
                    return
                while job["state"] in ("waiting", "running"):
                    time.sleep(0.25)
                    _, job = self.server.json("GET", f"/v1/jobs/{job['id']}")
                name = f"{kind} {job['state']}"
                self.done[name] = self.done.get(name, 0) + 1
                if job["state"] != "done":
                    self.errors.append(f"{kind}: {job}")
            round_ += 1

    def end(self):
        self.stop.set()
        self.thread.join()


class Resident:
    """The server's resident memory, once a second while all streams ask, from when each has had an
    answer: its own, and what it has mapped of files, which the system takes back when it needs it."""

    KINDS = {"anon": "RssAnon", "file": "RssFile", "shared": "RssShmem"}

    def __init__(self, server, n_streams, deadline):
        self.server, self.deadline = server, deadline
        # Before its first answer a stream has no local context yet.
        self.without_answer = set(range(n_streams))
        self.mb = {kind: [] for kind in self.KINDS}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stop.wait(1):
            if self.without_answer or time.monotonic() > self.deadline:
                continue
            with open(f"/proc/{self.server.process.pid}/status", encoding="ascii") as file:
                fields = dict(line.split(":", 1) for line in file)
            for kind, name in self.KINDS.items():
                self.mb[kind].append(int(fields[name].split()[0]) * 1024 / 1e6)

    def end(self):
        self.stop.set()
        self.thread.join()

    def summary(self):
        def fifths(values):
            # Parts of equal length: what grows steadily grows from each to the next.
            parts = [values[len(values) * i // 5:len(values) * (i + 1) // 5] for i in range(5)]
            return [round(common.median(part)) for part in parts if part]
        return {"seconds": len(self.mb["anon"]),
                **{f"{kind}_mb": {"fifths": fifths(values), "max": round(max(values, default=0))}
                   for kind, values in self.mb.items()}}


def stored(server):
    """What the memory holds: tokens of documents, and bytes of its folder with all that is not freed."""
    _, contents = server.json("GET", "/v1/collections")
    n_bytes = 0
    for folder, _, files in os.walk(server.memory):
        for name in files:
            try:
                n_bytes += os.path.getsize(os.path.join(folder, name))
            except FileNotFoundError:
                pass  # removed meanwhile
    return {"tokens": contents["tokens"], "folder_mb": round(n_bytes / 1e6)}


def load(server, options, asked, seconds):
    tally, sources = serve.Tally(), Sources(asked)
    deadline = time.monotonic() + seconds

    def work(number, own):
        way = "by_default"
        while time.monotonic() < deadline:
            settings = {} if way == "by_default" else {"reread": 0, "documents": [own.id]}
            answer = serve.stream(server, "/v1/chat/completions",
                                  {"messages": [{"role": "user", "content": own.fact.question}],
                                   "max_tokens": options.max_tokens, "fovea": settings})
            tally.add(answer)
            resident.without_answer.discard(number)
            if answer["error"] is None:
                sources.add(way, own.path, answer["sources"])
                if common.contains(answer["text"], own.fact.answer):
                    with sources.lock:
                        sources.counts[way]["answered"] = sources.counts[way].get("answered", 0) + 1
            way = "in_document" if way == "by_default" else "by_default"

    before, resident = stored(server), Resident(server, len(asked), deadline)
    begun = time.monotonic()
    threads = [threading.Thread(target=work, args=item) for item in enumerate(asked)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.monotonic() - begun
    resident.end()
    return {**tally.summary(taken), "seconds": round(taken), "sources": sources.counts,
            "first_wrong": sources.wrong[:3], "resident": resident.summary(),
            "stored": [before, stored(server)]}


def main():
    options = common.arguments(__doc__.splitlines()[0], streams=64, seconds=300, alone_seconds=300,
                               max_tokens=48)
    options.parallel = options.streams
    memory = os.path.join(options.work, "soak-memory")
    folder, asked = make_asked(options)
    common.fovea(options, "ingest", "--memory", memory, *serve.adapter_of(options), "--recursive",
                 folder)
    ids = {os.path.realpath(d["source"]): d["id"]
           for d in common.fovea(options, "docs", "list", "--memory", memory)}
    for own in asked:
        own.id = ids[os.path.realpath(own.path)]
    server = serve.Server(options, memory)
    result = {"streams": options.streams, "max_tokens": options.max_tokens,
              "load_average_before": os.getloadavg()[0]}
    try:
        load(server, options, asked, 10)  # what is read for the first time
        result["alone"] = load(server, options, asked, options.alone_seconds)
        jobs = Jobs(server)
        busy = result["beside_jobs"] = load(server, options, asked, options.seconds)
        jobs.end()
        result["jobs"] = jobs.done
        result["job_errors"] = jobs.errors[:3]
        result["errors"] = result["alone"]["errors"] + busy["errors"] + len(jobs.errors)
        result["wrong_sources"] = sum(counts["wrong"] for side in ("alone", "beside_jobs")
                                      for counts in result[side]["sources"].values())
        result["p99_over_alone"] = round(busy["between_tokens_ms"]["p99"] /
                                         result["alone"]["between_tokens_ms"]["p99"], 2)
    finally:
        result["exit_status"] = server.stop()
    print(json.dumps(result))
    return 0 if result["errors"] == 0 and result["wrong_sources"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
