"""The server under load: tokens a second of concurrent questions against one, the time between the
tokens of streams, the same while documents are ingested and indexes rebuilt, and its memory.

    python3 bench/serve.py [--tokens 60000] [--streams 16] [--seconds 60] [--max-tokens 64]

A memory of --tokens random words is made first (what is said does not matter here; the default model
is real). Standard library only; prints one JSON object.
"""
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time

import common


def text_of(seed, n_words):
    source = random.Random(seed)
    lines = []
    for _ in range(n_words // 12):
        lines.append(" ".join("".join(source.choices("aeioubcdfglmnprst", k=source.randint(2, 7)))
                              for _ in range(12)) + ".")
    return "\n".join(lines) + "\n"


def adapter_of(options):
    return ["--adapter", options.adapter] if options.adapter else []


class Server:
    def __init__(self, options, memory):
        self.memory = memory
        self.process = subprocess.Popen(
            [options.fovea, "serve", "--memory", memory, "--port", "0", "--parallel",
             str(options.parallel), *adapter_of(options),
             *(["--threads", str(options.threads)] if options.threads else [])],
            stdout=subprocess.PIPE, text=True)
        address = self.process.stdout.readline().strip()
        self.port = int(address.rpartition(":")[2])

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request(method, path, body, headers or {})
        return connection, connection.getresponse()

    def json(self, method, path, body=None):
        connection, response = self.request(method, path, json.dumps(body) if body else None)
        result = json.loads(response.read())
        connection.close()
        return response.status, result

    def resident_mb(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    def stop(self):
        self.process.terminate()
        return self.process.wait()


class Tally:
    def __init__(self):
        self.lock = threading.Lock()
        self.gaps_ms, self.first_ms, self.tokens, self.answers, self.errors = [], [], 0, 0, []

    def add(self, result):
        with self.lock:
            if result["error"] is not None:
                self.errors.append(result["error"])
            else:
                self.answers += 1
            self.tokens += result["tokens"]
            self.gaps_ms += result["gaps_ms"]
            if result["first_ms"] is not None:
                self.first_ms.append(result["first_ms"])

    def percentile(self, share):
        gaps = sorted(self.gaps_ms)
        return round(gaps[min(len(gaps) - 1, int(share * len(gaps)))], 2) if gaps else None

    def summary(self, seconds):
        return {"answers": self.answers, "errors": len(self.errors), "first_errors": self.errors[:3],
                "tokens_per_second": round(self.tokens / seconds, 1),
                "between_tokens_ms": {"median": self.percentile(0.5), "p99": self.percentile(0.99),
                                      "max": self.percentile(1.0)},
                "first_token_ms_median": round(statistics.median(self.first_ms), 1)
                if self.first_ms else None}


def stream(server, path, body):
    """One streamed answer: {"text", "tokens", "first_ms", "gaps_ms", "sources", "error"}."""
    result = {"text": "", "tokens": 0, "first_ms": None, "gaps_ms": [], "sources": [], "error": None}
    begun = time.perf_counter()
    connection, response = server.request(
        "POST", path, json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}))
    if response.status != 200:
        result["error"] = f"{response.status} {response.read()[:200]!r}"
        connection.close()
        return result
    last = None
    while line := response.readline():
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            break
        chunk = json.loads(line[6:])
        if "error" in chunk:
            result["error"] = f"{chunk['error']}"
            break
        if chunk.get("usage"):
            result["tokens"] = chunk["usage"]["completion_tokens"]
            continue
        result["sources"] = chunk.get("fovea_sources", result["sources"])
        choice = chunk["choices"][0]
        if text := choice.get("text") or choice.get("delta", {}).get("content") or "":
            now = time.perf_counter()
            if last is None:
                result["first_ms"] = (now - begun) * 1e3
            else:
                result["gaps_ms"].append((now - last) * 1e3)
            last = now
            result["text"] += text
    else:
        result["error"] = "the stream ended too early"
    connection.close()
    return result


def stream_one(server, question, options, tally, own):
    # A text that is continued does not end by itself after a few tokens, as an answer may.
    tally.add(stream(server, "/v1/completions",
                     {"prompt": question, "max_tokens": options.max_tokens, "temperature": 0.8,
                      "seed": len(question), "fovea": own}))


def load(server, options, n_streams, seconds, own):
    tally = Tally()
    deadline = time.monotonic() + seconds
    counter = iter(range(1_000_000))

    def work():
        while time.monotonic() < deadline:
            with tally.lock:
                i = next(counter)
            stream_one(server, f"It is said of number {i} that", options, tally, own)

    begun = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(n_streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally.summary(time.monotonic() - begun)


def first_tokens(server, options, memory, n_questions=21):
    """Medians of the time to the first token: over HTTP, and in a process of `fovea ask` that is open;
    the two take turns."""
    asker = subprocess.Popen(
        [options.fovea, "ask", "--memory", memory, "--json", "--quiet", "--max-tokens", "4",
         "--raw", *(["--threads", str(options.threads)] if options.threads else []), "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    http_ms, ask_ms = [], []
    for i in range(n_questions):
        question = f"It is said of number {i} that"
        asker.stdin.write(question + "\n")
        asker.stdin.flush()
        ask_ms.append(json.loads(asker.stdout.readline())["timing"]["prefill_ms"])
        tally = Tally()
        stream_one(server, question, options, tally, {})
        http_ms += tally.first_ms
    asker.stdin.close()
    asker.wait()
    return {"http": round(statistics.median(http_ms[1:]), 1),
            "ask": round(statistics.median(ask_ms[1:]), 1)}


def upload(server, seed, n_words):
    return server.json("POST", "/v1/documents",
                       {"title": f"load {seed}", "text": text_of(seed, n_words)})


def main():
    options = common.arguments(__doc__.splitlines()[0], tokens=60000, streams=16, parallel=16,
                               seconds=60, max_tokens=64)
    memory = os.path.join(options.work, "serve-memory")
    # About two and a half tokens a word.
    source = os.path.join(options.work, f"serve-{options.tokens}.txt")
    with open(source, "w", encoding="utf-8") as file:
        file.write(text_of(0, options.tokens * 2 // 5))
    common.fovea(options, "ingest", "--memory", memory, *adapter_of(options), source)
    server = Server(options, memory)
    result = {"streams": options.streams, "parallel": options.parallel, "seconds": options.seconds,
              "max_tokens": options.max_tokens, "memory_tokens": options.tokens}
    try:
        # The memory layers read the memory for each token: what a batch has to share.
        for name, own in (("memory_off", {"memory": False}), ("memory_on", {"reread": 0})):
            load(server, options, 2, 3, own)  # what is read for the first time
            rounds = [(load(server, options, 1, options.seconds / 3, own),
                       load(server, options, options.streams, options.seconds / 3, own))
                      for _ in range(3)]
            ratios = [many["tokens_per_second"] / max(one["tokens_per_second"], 0.1)
                      for one, many in rounds]
            result[name] = {"one": rounds[-1][0], "many": rounds[-1][1],
                            "many_over_one": [round(r, 2) for r in ratios],
                            "errors": sum(o["errors"] + m["errors"] for o, m in rounds)}
        result["first_token_ms"] = first_tokens(server, options, memory)
        own = {"reread": 0}
        resident = [server.resident_mb()]
        alone = load(server, options, options.streams, options.seconds, own)
        resident.append(server.resident_mb())
        stop = threading.Event()
        jobs = []

        def work_beside():
            seed = 1
            while not stop.is_set():
                status, job = (upload(server, seed, 8000) if seed % 3 else
                               server.json("POST", "/v1/jobs", {"kind": "rebuild"}))
                seed += 1
                state = job
                while status == 202 and not stop.is_set() and state["state"] in ("waiting", "running"):
                    time.sleep(0.2)
                    _, state = server.json("GET", f"/v1/jobs/{job['id']}")
                jobs.append((job["kind"], state["state"]))

        beside = threading.Thread(target=work_beside)
        beside.start()
        busy = load(server, options, options.streams, options.seconds, own)
        stop.set()
        beside.join()
        resident.append(server.resident_mb())
        result["alone"] = alone
        result["beside_jobs"] = busy
        result["jobs"] = [f"{kind} {state}" for kind, state in jobs]
        result["p99_over_alone"] = round(busy["between_tokens_ms"]["p99"] /
                                         alone["between_tokens_ms"]["p99"], 2)
        result["resident_mb"] = [round(r) for r in resident]
    finally:
        result["exit_status"] = server.stop()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
