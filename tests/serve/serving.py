"""Runs the built server as its users do, over a memory of a tiny model with random weights, or of the
default model."""
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bench"))
from tiny_model import write_tiny_model  # noqa: E402

FOVEA = os.environ.get("FOVEA", os.path.join(ROOT, "build/release/bin/fovea"))
SANITIZED = os.environ.get("FOVEA_SANITIZED", "") != ""
PATIENCE_S = 120 * (6 if SANITIZED else 1)

OTTER = "The otter lives by the river. It eats fish.\n\nThe badger digs at night.\n"
TOOLS = "A hammer drives nails.\n\nA chisel cuts wood.\n"


def long_answer(server, key=None):
    """Options with which "Otter?" has an answer of hundreds of tokens, whatever the model's random
    weights make of it: who stops the server at the first one stops it amid the answer."""
    choices = [{"max_tokens": 1500, "temperature": 1.5, "seed": seed} for seed in range(8)]
    return max(choices, key=lambda options: server.ask(
        "Otter?", key, **options).json["usage"]["completion_tokens"])


class Home:
    """A folder with a model; what is made in it goes with it. `model`: "tiny", which is made here and
    says what `says` has (tiny_model.py), or one that this user has."""

    def __init__(self, model="tiny", says=b""):
        self._folder = tempfile.TemporaryDirectory(prefix="fovea-serve-")
        self.folder = self._folder.name
        self.environment = {**os.environ, "FOVEA_MODEL": "", "FOVEA_MEMORY": ""}
        self.model_options = ("--model", model)
        if model == "tiny":
            write_tiny_model(self.path("home/models/tiny"), says)
            self.environment["FOVEA_HOME"] = self.path("home")
            self.model_options += ("--mem-layers", "1")

    def close(self):
        self._folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def fovea(self, *arguments):
        """The results of a command, as JSON."""
        done = subprocess.run([FOVEA, *arguments, "--json", "--quiet"], env=self.environment,
                              capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    def ingest(self, *files, collection="default", memory="memory"):
        return self.fovea("ingest", "--memory", self.path(memory), *self.model_options,
                          "--window", "128", "--precision", "float32", "--collection", collection,
                          *files)

    @contextlib.contextmanager
    def serve(self, *arguments, memory="memory"):
        server = Server(self, memory, arguments)
        try:
            yield server
        finally:
            server.stop()


class Response:
    def __init__(self, response):
        self.status = response.status
        self.headers = dict(response.getheaders())
        self.bytes = response.read()

    @property
    def json(self):
        return json.loads(self.bytes)


class Server:
    def __init__(self, home, memory, arguments):
        self.log = open(home.path("server.log"), "a+", encoding="utf-8")
        self.process = subprocess.Popen(
            [FOVEA, "serve", "--memory", home.path(memory), "--port", "0", "--threads", "2",
             "--precision", "float32",
             *(() if os.path.exists(home.path(memory)) else home.model_options), *arguments],
            env=home.environment, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            self.stop()
            with open(home.path("server.log"), encoding="utf-8") as log:
                raise RuntimeError(f"the server did not start: {log.read()}")
        self.host, _, port = self.address.removeprefix("http://").rpartition(":")
        self.port = int(port)

    def stop(self):
        """Ends it as a system does; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process.stdout.close()
        self.log.close()
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)

    def request(self, method, path, body=None, key=None, headers=None):
        headers = dict(headers or {})
        if key:
            headers["Authorization"] = f"Bearer {key}"
        if isinstance(body, dict):
            body = json.dumps(body)
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            return Response(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body, **more):
        return self.request("POST", path, body, **more)

    def ask(self, question, key=None, fovea=None, **fields):
        return self.post("/v1/chat/completions",
                         {"messages": [{"role": "user", "content": question}], "max_tokens": 5,
                          **({"fovea": fovea} if fovea else {}), **fields}, key=key)

    def upload(self, files, collection=None, key=None):
        """`files`: (name, bytes) pairs."""
        boundary = "----fovea-test-boundary"
        body = b""
        if collection is not None:
            body += (f'--{boundary}\r\nContent-Disposition: form-data; name="collection"\r\n\r\n'
                     f"{collection}\r\n").encode()
        for name, content in files:
            body += (f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
                     f'filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
                     ).encode() + content + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        return self.request("POST", "/v1/documents", body, key,
                            {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def await_job(self, job, key=None):
        """The job, once it has ended."""
        identifier = job.json["id"] if isinstance(job, Response) else job
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            state = self.get(f"/v1/jobs/{identifier}", key=key).json
            if state["state"] not in ("waiting", "running"):
                return state
            time.sleep(0.02)
        raise TimeoutError(f"job {identifier} did not end: {state}")
