#!/usr/bin/env python3
"""Counts the cases of a test run and shows the output of those that failed.

Usage: scripts/count_tests.py JUNIT RESULTS [FAILED_STEP…]

JUNIT is what `ctest --output-junit` wrote; RESULTS the folder of the GoogleTest JSON reports
(GTEST_OUTPUT=json:RESULTS/) and of pytest's in XML (--junitxml). A test of CTest with a report counts by its cases; one without (a
script, or a program that ended before its report) counts as one. A FAILED_STEP is something that
failed before the tests; it counts as one too. Prints "N passed, N failed", with
", N skipped" when there are any, as the last line; exits with 1 when anything failed or nothing
ran.
"""

import json
import pathlib
import sys
import xml.etree.ElementTree


def read_pytest_report(path):
    """As read_report, of pytest."""
    passed, failed, skipped = 0, [], 0
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        problem = case.find("failure") if case.find("failure") is not None else case.find("error")
        if problem is not None:
            failed.append((f"{case.get('classname')}.{case.get('name')}", problem.text or ""))
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def read_report(path):
    """Passed, failed and skipped cases of a program's report; failed ones with their messages."""
    if path.suffix == ".xml":
        return read_pytest_report(path)
    passed, failed, skipped = 0, [], 0
    for suite in json.loads(path.read_text(encoding="utf-8"))["testsuites"]:
        for case in suite["testsuite"]:
            name = f"{suite['name']}.{case['name']}"
            if case.get("failures"):
                failed.append((name, "\n".join(f["failure"] for f in case["failures"])))
            elif case["result"] == "SKIPPED":
                skipped += 1
            elif case["result"] == "COMPLETED":
                passed += 1
    return passed, failed, skipped


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    junit, results = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    passed, skipped = 0, 0
    failed = [(step, "its output is above") for step in sys.argv[3:]]
    counted = set()
    if junit.exists():
        for test in xml.etree.ElementTree.parse(junit).getroot().iter("testcase"):
            name = test.get("name")
            status = test.get("status")
            output = test.findtext("system-out") or ""
            report = results / f"{name}.json"
            if not report.exists():
                report = results / f"{name}.xml"
            cases = (0, [], 0)
            if report.exists():
                counted.add(report)
                cases = read_report(report)
            passed += cases[0]
            failed += [(f"{name}: {case}", message) for case, message in cases[1]]
            skipped += cases[2]
            if status == "fail" and not cases[1]:
                failed.append((name, output))  # a crash, a time-out, or a failed script
            elif not report.exists():
                passed += status == "run"
                skipped += status not in ("run", "fail")
    else:
        failed.append(("ctest", f"{junit} is missing: the run was cut off"))
    # Reports of programs whose run was cut off before CTest could say how it ended.
    for report in sorted([*results.glob("*.json"), *results.glob("*.xml")]):
        if report not in counted:
            cases = read_report(report)
            passed += cases[0]
            failed += [(f"{report.stem}: {case}", message) for case, message in cases[1]]
            skipped += cases[2]

    for name, message in failed:
        print(f"\n--- failed: {name}\n{message.rstrip()}")
    line = f"{passed} passed, {len(failed)} failed"
    if skipped:
        line += f", {skipped} skipped"
    print(f"\n{line}")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
