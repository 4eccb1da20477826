"""Concurrent questions over HTTP: `fovea serve` and llama.cpp's servers, with the same GGUF file, threads
and prompts, which take turns in one run.

    python3 bench/serve_llama.py --llama-python VENV/bin/python [--llama-server BIN]

  --llama-python  a Python with llama-cpp-python[server]: its server, which answers one at a time
  --llama-server  llama.cpp's own server, which batches: its tokens are made together, like ours

In three settings:
  plain     a text is continued; no memory
  memory    ours answers from the memory alone (nothing is read again; each token searches it);
            llama.cpp has the passage with the answer in its prompt
  passage   ours finds a passage and reads it again, as `ask` does by default (which includes the
            search for it); llama.cpp has that passage in its prompt
Answers are not streamed, so that what a server sends is one small body. A figure is the number of
answers' tokens, as the server counts them in `usage`, in the time from the first question to the
last answer: reading prompts is in it. Ours is with the model's own adapter, whose low-rank updates
llama.cpp does not have to compute. Prompts of one question after another have nothing in common, and
llama.cpp's server is told not to look for what an earlier round left. Standard library only; prints
a JSON object for each setting.
"""
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time

import common
import llama_decode
import serve
import serve_soak

PASSAGE_CHARACTERS = 900  # about what a passage that is read again has


class Llama:
    """A server of llama.cpp's, until stop()."""

    def __init__(self, command, port):
        self.port = port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                status, _ = post(self.port, "GET", "/v1/models")
                if status == 200:
                    break
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"{' '.join(command)}: does not answer")
            time.sleep(0.2)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def post(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None,
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def make_questions(n_questions):
    """(fact, passage with it)."""
    rng = random.Random(16)
    text = serve_soak.novel("flatland.txt") + serve_soak.novel("a-study-in-scarlet.txt")
    result = []
    for i, fact in enumerate(common.make_facts(rng, n_questions)):
        begin = (i * 977) % (len(text) - PASSAGE_CHARACTERS)
        passage = text[begin:begin + PASSAGE_CHARACTERS]
        middle = passage.find(" ", PASSAGE_CHARACTERS // 2)
        result.append((fact, f"{passage[:middle]} {fact.sentence}{passage[middle:]}"))
    return result


def bodies(setting, is_ours, question, n_tokens):
    """The request of a side: a text, the same for all where no memory is in it."""
    fact, passage = question
    # A text that is continued goes on to max_tokens on every side, more often than not.
    asked = f"Question: {fact.question}\nA long answer:"
    body = {"max_tokens": n_tokens, "temperature": 0.0}
    if setting == "plain":
        own = {"memory": False}
    elif setting == "memory":
        own = {"reread": 0}
    else:
        own = {"reread": 1}
    if is_ours:
        return "/v1/completions", {**body, "prompt": asked, "fovea": own}
    return "/v1/completions", {**body, "cache_prompt": False,
                               "prompt": asked if setting == "plain" else f"{passage}\n\n{asked}"}


class Side:
    def __init__(self, port, is_ours):
        self.port, self.is_ours = port, is_ours

    def run(self, setting, questions, n_streams, n_tokens):
        """Tokens a second of the questions, n_streams at a time; tokens of answers and prompts."""
        left, lock = list(questions), threading.Lock()
        counts = {"completion_tokens": 0, "prompt_tokens": 0}
        errors = []

        def work():
            while True:
                with lock:
                    if not left:
                        return
                    question = left.pop()
                try:
                    status, answer = post(self.port, "POST",
                                          *bodies(setting, self.is_ours, question, n_tokens))
                except OSError as error:
                    status, answer = 0, str(error)
                with lock:
                    if status != 200:
                        errors.append(answer)
                        left.clear()
                        return
                    for name in counts:
                        counts[name] += answer["usage"][name]

        begun = time.monotonic()
        threads = [threading.Thread(target=work) for _ in range(n_streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begun
        if errors:
            sys.exit(f"port {self.port}: {errors[0]}")
        return counts["completion_tokens"] / seconds, {
            name: count / len(questions) for name, count in counts.items()}


def main():
    options = common.arguments(__doc__.splitlines()[0], streams=16, rounds=3, max_tokens=64,
                               llama_python="", llama_server="")
    if not options.llama_python and not options.llama_server:
        sys.exit("pass --llama-python, --llama-server, or both")
    options.threads = options.threads or os.cpu_count()
    options.parallel = options.streams
    settings = ("plain", "memory", "passage")
    # In a round each stream has a question, one alone two; a round before the others warms up.
    questions = make_questions(options.streams + 2)
    memory = os.path.join(options.work, "serve-llama-memory")
    source = os.path.join(options.work, "serve-llama.jsonl")
    with open(source, "w", encoding="utf-8") as file:
        for i, (_, passage) in enumerate(questions):
            file.write(json.dumps({"id": f"passage {i}", "text": passage}) + "\n")
    common.fovea(options, "ingest", "--memory", memory, "--model", options.model, source)
    model = common.model_path(options)

    servers, sides = [], {}
    ours = serve.Server(options, memory)
    servers.append(ours)
    sides["fovea"] = Side(ours.port, True)
    if options.llama_python:
        port = free_port()
        servers.append(Llama(
            [options.llama_python, llama_decode.__file__, "http", model, "--port", str(port),
             "--n_threads", str(options.threads), "--n_threads_batch", str(options.threads),
             "--n_ctx", "2048", "--interrupt_requests", "false"], port))
        sides["llama-cpp-python"] = Side(port, False)
    if options.llama_server:
        port = free_port()
        servers.append(Llama(
            [options.llama_server, "--model", model, "--port", str(port), "--threads",
             str(options.threads), "--threads-batch", str(options.threads), "--parallel",
             str(options.streams), "--ctx-size", str(1024 * options.streams)], port))
        sides["llama-server"] = Side(port, False)

    common_figures = {"streams": options.streams, "threads": options.threads,
                      "rounds": options.rounds,
                      "max_tokens": options.max_tokens, "model": os.path.basename(model)}
    try:
        for setting in settings:
            rates = {name: {"one": [], "many": []} for name in sides}
            lengths = {}
            for round_ in range(options.rounds + 1):
                for name, side in sides.items():
                    one, _ = side.run(setting, questions[:2], 1, options.max_tokens)
                    many, lengths[name] = side.run(setting, questions[2:], options.streams,
                                                   options.max_tokens)
                    if round_ > 0:
                        rates[name]["one"].append(one)
                        rates[name]["many"].append(many)
            many = {name: rates[name]["many"] for name in sides}
            print(json.dumps({
                "setting": setting, **common_figures, "load_average": os.getloadavg()[0],
                "tokens_per_second": {name: {n: round(statistics.median(rates[name][n]), 1)
                                             for n in ("one", "many")} for name in sides},
                "tokens_of_an_answer_and_its_prompt": {
                    name: [round(lengths[name]["completion_tokens"]),
                           round(lengths[name]["prompt_tokens"])] for name in sides},
                "fovea_over": {name: [round(a / b, 2) for a, b in zip(many["fovea"], many[name])]
                               for name in sides if name != "fovea"}}), flush=True)
    finally:
        for server in servers:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
