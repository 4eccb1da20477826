#!/usr/bin/env python3
"""Makes the documents of examples/ from a folder of data sets.

Usage: scripts/make_examples.py DATA [--output examples] [--articles 600]

DATA holds books-train.jsonl.zst (records with title, author, source, text) and
qa/qed-dev.jsonl.zst (records with context, question, answers and a source of the form
"QED/dev/ID (TITLE)"). Needs the zstd command; the result depends on DATA alone.
"""

import argparse
import json
import pathlib
import re
import subprocess

# File name, title, author, first published.
BOOKS = [
    ("a-study-in-scarlet.txt", "A Study in Scarlet", "Arthur Conan Doyle", 1887),
    ("flatland.txt", "Flatland", "Edwin A. Abbott", 1884),
]


def records(path):
    """The JSON records of a compressed file."""
    process = subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE)
    with process.stdout as lines:
        for line in lines:
            yield json.loads(line)
    if process.wait() != 0:
        raise SystemExit(f"{path}: zstd failed with status {process.returncode}")


def write_books(data, output):
    wanted = {(title, author): (name, year) for name, title, author, year in BOOKS}
    for record in records(data / "books-train.jsonl.zst"):
        found = wanted.pop((record["title"], record["author"]), None)
        if found is None:
            continue
        name, year = found
        header = (
            f"Title: {record['title']}\n"
            f"Author: {record['author']}\n"
            f"Origin: first published in {year}, in the public domain; from Project Gutenberg's "
            f"text ({record['source'].split(':')[0]})\n\n"
        )
        (output / name).write_text(header + record["text"].strip() + "\n", encoding="utf-8")
        if not wanted:
            return
    raise SystemExit(f"not in the data: {sorted(wanted)}")


def write_encyclopedia(data, output, n_articles):
    """One paragraph an article: the first of each title with 250 to 1,200 characters."""
    articles = {}
    for record in records(data / "qa" / "qed-dev.jsonl.zst"):
        match = re.fullmatch(r"QED/dev/(-?\d+) \((.*)\)", record["source"], re.DOTALL)
        if match is None:
            raise SystemExit(f"unexpected source: {record['source']}")
        if len(articles) < n_articles and 250 <= len(record["context"]) <= 1200:
            articles.setdefault(match[2], (match[1], record["context"]))
    with open(output / "encyclopedia.jsonl", "w", encoding="utf-8") as file:
        for title in sorted(articles):
            identifier, text = articles[title]
            record = {"id": identifier, "title": title, "text": text}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description="Makes the documents of examples/.")
    parser.add_argument("data", type=pathlib.Path, help="the folder of the data sets")
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--output", type=pathlib.Path, default=root / "examples")
    parser.add_argument("--articles", type=int, default=600)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_books(arguments.data, arguments.output)
    write_encyclopedia(arguments.data, arguments.output, arguments.articles)


if __name__ == "__main__":
    main()
