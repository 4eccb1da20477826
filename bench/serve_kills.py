"""Kills the server (SIGKILL) at random moments while it carries out jobs that it has accepted.

    python3 bench/serve_kills.py --kills 200 --seed 3

After each start a few files are uploaded, some of them new texts under known names, and now and then
a rebuild is asked for or a document deleted. At the end every job that was accepted has to be done,
every document has to have the text that was accepted last, what was deleted is gone, and `verify`
finds nothing. Prints one JSON object; exit status 1 where something was lost. Standard library only.
"""
import argparse
import json
import os
import random
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests/serve"))
from serving import Home  # noqa: E402


def words(source, n_bytes):
    text = ""
    while len(text) < n_bytes:
        text += "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 8))) + " "
    return text + ".\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    source = random.Random(options.seed)
    home = Home()
    expected, jobs, lost = {}, [], []
    n_deleted = n_rebuilds = n_busy = 0
    for _ in range(options.kills):
        with home.serve() as server:
            for _ in range(source.randint(1, 3)):
                name = f"{source.randrange(40)}.txt"
                text = words(source, source.choice([300, 5000, 40000]))
                added = server.upload([(name, text.encode())])
                assert added.status == 202, added.bytes
                expected[name] = text
                jobs.append(added.json["id"])
            if source.random() < 0.1:
                added = server.post("/v1/jobs", {"kind": "rebuild"})
                if added.status == 202:
                    n_rebuilds += 1
                    jobs.append(added.json["id"])
            time.sleep(source.uniform(0, 0.5))
            if source.random() < 0.1:
                # Nothing may be on its way to the document that goes.
                for job in jobs[-4:]:
                    server.await_job(job)
                documents = server.get("/v1/documents").json["data"]
                if documents:
                    gone = source.choice(documents)
                    assert server.request("DELETE", f"/v1/documents/{gone['id']}").status == 200
                    for one in gone["sources"]:
                        del expected[one["source"].removeprefix("upload:")]
                    n_deleted += 1
            n_busy += any(job["state"] in ("waiting", "running")
                          for job in server.get("/v1/jobs").json["data"])
            server.kill()
    with home.serve() as server:
        for job in jobs:
            state = server.await_job(job)
            if state["state"] != "done":
                lost.append(state)
        found = {}
        for document in server.get("/v1/documents").json["data"]:
            text = server.get(f"/v1/documents/{document['id']}").json["text"]
            for one in document["sources"]:
                found[one["source"].removeprefix("upload:")] = text
        code = server.stop()
    lost += [f"{name}: lost or other" for name in expected if found.get(name) != expected[name]]
    lost += [f"{name}: not deleted" for name in found if name not in expected]
    verified = home.fovea("verify", "--memory", home.path("memory"))[0]["ok"]
    left = os.listdir(home.path("memory/jobs/uploads"))
    home.close()
    print(json.dumps({"kills": options.kills, "seed": options.seed, "while_jobs_waited_or_ran": n_busy,
                      "jobs": len(jobs), "rebuilds": n_rebuilds, "deleted": n_deleted,
                      "documents": len(found), "lost": len(lost), "first_lost": lost[:5],
                      "files_left": len(left), "verify_ok": verified, "exit_status": code}))
    return 0 if not lost and verified and not left and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
