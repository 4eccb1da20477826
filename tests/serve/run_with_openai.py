#!/usr/bin/env python3
"""Runs a test in a virtual environment that has the openai client.

Usage: run_with_openai.py FOLDER TEST     (FOLDER: of the environment, made where it is missing)

Exit status 77, with a message, where the client cannot be had; else the test's.
"""
import os
import subprocess
import sys

OPENAI = "openai>=1.60,<3"
SKIPPED = 77


def main():
    folder, test = sys.argv[1:]
    python = os.path.join(folder, "bin/python")
    try:
        if not os.path.exists(python):
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        has_client = subprocess.run([python, "-c", "import openai"], check=False,
                                    stderr=subprocess.DEVNULL).returncode == 0
        if not has_client:
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--retries", "1",
                            "--disable-pip-version-check", OPENAI], check=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"SKIPPED: pip cannot get {OPENAI} ({error})")
        return SKIPPED
    return subprocess.run([python, test], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
