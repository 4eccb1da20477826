#!/usr/bin/env python3
"""Runs a test in a virtual environment that has a package of PyPI.

Usage: run_with_package.py FOLDER MODULE REQUIREMENT TEST
    FOLDER of the environment, made where it is missing; MODULE that the package brings;
    REQUIREMENT as for pip: "openai>=1.60,<3"

Exit status 77, with a message, where the package cannot be had; else the test's.
"""
import os
import subprocess
import sys

SKIPPED = 77


def main():
    folder, module, requirement, test = sys.argv[1:]
    python = os.path.join(folder, "bin/python")
    try:
        if not os.path.exists(python):
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        has_package = subprocess.run([python, "-c", f"import {module}"], check=False,
                                     stderr=subprocess.DEVNULL).returncode == 0
        if not has_package:
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--retries", "1",
                            "--disable-pip-version-check", requirement], check=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"SKIPPED: pip cannot get {requirement} ({error})")
        return SKIPPED
    return subprocess.run([python, test], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
