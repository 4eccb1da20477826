#!/usr/bin/env python3
"""Random and mutated requests to the built server: it never ends, and never stays silent.

Usage: fuzz.py [--requests N] [--seed S] [--clients N]

Every request that is whole has to get a status line of HTTP; one that is cut off may be closed
without one only where nothing of it came. At the end the server still answers as it did before, and
stops when it is told to. Environment: FOVEA, the program. Standard library only.
"""
import argparse
import collections
import json
import random
import socket
import sys
import threading
import time

from serving import OTTER, PATIENCE_S, TOOLS, Home

PATHS = ["/", "/health", "/metrics", "/v1/models", "/v1/models/tiny", "/v1/chat/completions",
         "/v1/completions", "/v1/search", "/v1/documents", "/v1/documents/abcdef", "/v1/collections",
         "/v1/jobs", "/v1/jobs/1", "/v1/embeddings", "/../../etc/passwd", "/%2e%2e/%00", "//", "*"]
METHODS = ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "Ω"]
# What is offered, as often as all else.
ROUTES = [("GET", path) for path in PATHS[:5]] + [
    ("GET", "/v1/documents?limit=1"), ("GET", "/page/app.js"), ("GET", "/v1/collections"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/1"), ("DELETE", "/v1/jobs/1"), ("DELETE", "/v1/documents/abcdef")] + [
    ("POST", path) for path in ("/v1/chat/completions", "/v1/completions", "/v1/search",
                                "/v1/documents", "/v1/jobs")] * 4
VALUES = [None, True, False, 0, 1, -1, 1.5, 1e308, -1e308, 2**31, 2**63, 2**64, "", "x", "\0", "\n",
          "\ud7ff", "€" * 50, [], {}, [[]], [None], {"": ""}, "a" * 3000, [1] * 100]
NAMES = ["model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p",
         "seed", "stop", "stream", "stream_options", "n", "fovea", "tools", "query", "by", "limit",
         "collections", "documents", "title", "text", "collection", "kind", "index", "logprobs"]
OWN = ["collections", "documents", "memory", "mode", "top_k", "sources", "reread", "reread_by",
       "reread_memory", "other"]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, share):
        return self.random.random() < share

    def value(self, depth=0):
        if depth < 3 and self.chance(0.2):
            return {self.random.choice(NAMES + OWN): self.value(depth + 1) for _ in range(2)}
        return self.random.choice(VALUES)

    def question(self, path):
        bodies = [
            {"messages": [{"role": "user", "content": "Where does the otter live?"}],
             "max_tokens": 3},
            {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "a"},
                          {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
             "max_tokens": 2, "stream": True},
            {"prompt": "The otter", "max_tokens": 3}, {"query": "otter", "by": "both"},
            {"title": "t", "text": "A few words."}, {"kind": "rebuild", "index": "exact"}]
        fitting = {"/v1/chat/completions": bodies[:2], "/v1/completions": bodies[2:3],
                   "/v1/search": bodies[3:4], "/v1/documents": bodies[4:5], "/v1/jobs": bodies[5:]}
        body = dict(self.random.choice(fitting.get(path, bodies)))
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 4])):
            body[self.random.choice(NAMES)] = self.value()
        if self.chance(0.2):
            body["fovea"] = {self.random.choice(OWN): self.value() for _ in range(2)}
        for name in ("max_tokens", "max_completion_tokens"):  # a long answer is no fault
            if isinstance(body.get(name), (int, float)) and body[name] > 50:
                body[name] = 5
        return body

    def body(self, path):
        kind = self.random.random()
        if kind < 0.1:
            return self.random.randbytes(self.random.randrange(200)), "application/octet-stream"
        if kind < 0.25:
            boundary = self.random.choice(["b", "-" * 60, ""])
            parts = b""
            for _ in range(self.random.randrange(4)):
                name = self.random.choice(["file", "collection", "", "x\"y", "\0"])
                file = self.random.choice(["", "; filename=\"a.txt\"", "; filename=\"../../x.pdf\"",
                                           "; filename=\"\xff.html\"", "; filename="])
                parts += (f"--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}"
                          "\r\n\r\n").encode("latin-1")
                parts += self.random.choice([b"", b"%PDF-1.4 x", b"<html>", b"PK\3\4zip", b"text.",
                                             b"--" + boundary.encode(), b"\0" * 99]) + b"\r\n"
            parts += f"--{boundary}--\r\n".encode()
            return parts, f"multipart/form-data; boundary={boundary}"
        return json.dumps(self.question(path)).encode("utf-8", "surrogatepass"), "application/json"

    def mutate(self, data):
        data = bytearray(data)
        for _ in range(self.random.choice([1, 1, 2, 5, 20])):
            if not data:
                break
            at = self.random.randrange(len(data))
            choice = self.random.randrange(5)
            if choice == 0:
                data[at] ^= 1 << self.random.randrange(8)
            elif choice == 1:
                del data[at:at + self.random.randrange(1, 9)]
            elif choice == 2:
                data[at:at] = self.random.randbytes(self.random.randrange(1, 9))
            elif choice == 3:
                data[at:at] = data[at:at + self.random.randrange(1, 40)]
            else:
                data[at:at + 1] = self.random.choice([b"\r\n", b"\0", b"\xff", b" ", b":", b"{"])
        return bytes(data)

    def request(self):
        method = self.random.choice(METHODS[:3] * 4 + METHODS)
        path = self.random.choice(PATHS)
        if self.chance(0.5):
            method, path = self.random.choice(ROUTES)
        if self.chance(0.1):
            path += self.random.choice(["?a=b", "?limit=x&after=" + "f" * 40, "/%zz", "?start=-1",
                                        "?" + "&" * 100, "/" * 300, "x" * 9000])
        body, kind = b"", ""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
        if method in ("POST", "PUT", "PATCH", "DELETE") and self.chance(0.9):
            body, kind = self.body(path)
            if self.chance(0.15):
                body = self.mutate(body)
            head += f"Content-Type: {kind}\r\n".encode("latin-1")
            if self.chance(0.1):
                sized = b""
                for begin in range(0, len(body), 50):
                    piece = body[begin:begin + 50]
                    sized += f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
                head += b"Transfer-Encoding: chunked\r\n"
                body = sized + b"0\r\n\r\n"
            else:
                head += f"Content-Length: {len(body)}\r\n".encode()
        for _ in range(self.random.choice([0] * 9 + [1, 1, 3])):
            head += self.random.choice([b"Range: bytes=0-,9-1,-5\r\n", b"Expect: 100-continue\r\n",
                                        b"Accept-Encoding: gzip, br\r\n", b"Origin: http://evil\r\n",
                                        b"Authorization: Bearer x\r\n", b"Content-Length: 5\r\n",
                                        b"Content-Encoding: gzip\r\n", b"X:\r\n",
                                        b"Transfer-Encoding: chunked\r\n"])
        data = head + b"\r\n" + body
        return self.mutate(data) if self.chance(0.25) else data


def send(server, data):
    """The status of the answer; 0: none."""
    with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was answered before it was whole
        answer = b""
        try:
            while piece := client.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    if answer.startswith(b"HTTP/1.1 100 "):  # Continue
        answer = answer.partition(b"\r\n\r\n")[2] or answer
    if not answer.startswith(b"HTTP/1.1 ") or not answer[9:12].isdigit():
        return 0
    return int(answer[9:12])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    home = Home()
    home.ingest(home.write("otter.txt", OTTER), home.write("tools.md", TOOLS))
    statuses = collections.Counter()
    silent = []
    lock = threading.Lock()
    begun = time.monotonic()
    with home.serve("--max-upload", "200000", "--read-seconds", "2") as server:
        documents = [d["id"] for d in server.get("/v1/documents").json["data"]]
        scope = {"reread": 0, "documents": documents}
        before = server.ask("Otter?", fovea=scope).json["choices"]

        def client(number):
            for i in range(number, options.requests, options.clients):
                data = Maker(options.seed * 1_000_003 + i).request()
                try:
                    status = send(server, data)
                except OSError as error:
                    status = repr(error)
                with lock:
                    statuses[status] += 1
                    if not isinstance(status, int) or status == 0:
                        silent.append((i, status, data[:300]))

        threads = [threading.Thread(target=client, args=(n,)) for n in range(options.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begun
        alive = server.process.poll() is None
        after = server.ask("Otter?", fovea=scope).json["choices"] if alive else None
        code = server.stop()
    print(json.dumps({"requests": options.requests, "seed": options.seed,
                      "statuses": {str(k): v for k, v in sorted(statuses.items(), key=str)},
                      "silent": len(silent), "seconds": round(seconds, 1)}))
    for i, status, data in silent[:10]:
        print(f"request {i}: {status}: {data!r}", file=sys.stderr)
    if not alive or code != 0:
        home_log = open(home.path("server.log"), encoding="utf-8").read()
        print(f"the server ended with {code}:\n{home_log[-4000:]}", file=sys.stderr)
    home.close()
    return 0 if alive and code == 0 and after == before and not silent else 1


if __name__ == "__main__":
    sys.exit(main())
