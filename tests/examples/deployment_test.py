#!/usr/bin/env python3
"""The systemd unit and the Containerfile of examples/, without systemd running and without a
container: what can be said of them by reading them.

Environment: FOVEA, the program.
"""
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from dockerfile_parse import DockerfileParser

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOVEA = os.environ["FOVEA"]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def options_of(*command):
    return set(re.findall(r"(?<![\w-])--[\w-]+", run(FOVEA, *command, "--help").stdout))


class UnitTest(unittest.TestCase):
    def setUp(self):
        with open(os.path.join(ROOT, "examples/fovea.service"), encoding="utf-8") as file:
            self.unit = file.read()

    def test_systemd_takes_it(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd-analyze is not installed")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "fovea.service")
            with open(path, "w", encoding="utf-8") as file:
                # It looks for the program, and for the page of the manual.
                file.write(re.sub("Documentation=.*\n", "",
                                  self.unit.replace("/usr/local/bin/fovea", FOVEA)))
            done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_its_commands_are_fovea_s(self):
        commands = re.findall(r"^ExecStart(?:Pre)?=(.*)$", self.unit, re.MULTILINE)
        self.assertEqual(len(commands), 2)
        for line in commands:
            program, *arguments = line.split()
            self.assertEqual(program, "/usr/local/bin/fovea")
            known = options_of(*[a for a in arguments[:2] if re.fullmatch("[a-z]+", a)])
            self.assertLessEqual({a for a in arguments if a.startswith("--")}, known)


class ContainerfileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        path = os.path.join(ROOT, "examples/Containerfile")
        with open(path, "rb") as file:
            # The parser takes files by name, and knows one name alone.
            parser = DockerfileParser(fileobj=file)
            cls.steps = [(step["instruction"], step["value"]) for step in parser.structure
                         if step["instruction"] != "COMMENT"]
            cls.images = parser.parent_images

    def values(self, instruction):
        return [value for name, value in self.steps if name == instruction]

    def test_instructions_are_known_and_images_are_named_in_full(self):
        known = {"FROM", "COPY", "WORKDIR", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT",
                 "CMD"}
        self.assertLessEqual({name for name, _ in self.steps}, known)
        for image in self.images:
            self.assertRegex(image, r"^docker\.io/library/debian:12")

    def test_what_is_copied_is_there_and_what_is_run_is_shell(self):
        stages = re.findall(r" AS (\w+)", "\n".join(self.values("FROM")))
        for value in self.values("COPY"):
            source = re.match(r"--from=(\w+) ", value)
            if source:
                self.assertIn(source[1], stages)
            else:
                self.assertTrue(os.path.exists(os.path.join(ROOT, value.split()[0])), value)
        for value in self.values("RUN"):
            self.assertEqual(run("sh", "-n", "-c", value).returncode, 0, value)
            for script in re.findall(r"scripts/\w+\.sh", value):
                self.assertTrue(os.access(os.path.join(ROOT, script), os.X_OK), script)

    def test_what_was_built_here_and_keys_do_not_get_into_it(self):
        def lines(name):
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                return [line.strip() for line in file if line.strip() and line[0] != "#"]

        ignored = lines(".dockerignore")
        self.assertIn(".git", ignored)
        # What git ignores; there a name without a slash at its beginning is one of any folder.
        for pattern in lines(".gitignore"):
            name = pattern.strip("/")
            self.assertIn(name if pattern.startswith("/") else f"**/{name}", ignored)
        # What its head has one write beside the sources.
        with open(os.path.join(ROOT, "examples/Containerfile"), encoding="utf-8") as file:
            written = re.findall(r"^#.* > (\S+)$", file.read(), re.MULTILINE)
        self.assertEqual(written, ["keys"])
        self.assertLessEqual(set(written), set(ignored))

    def test_it_starts_a_server_with_keys_that_is_not_root(self):
        self.assertEqual(self.values("USER"), ["fovea"])
        command = json.loads(self.values("ENTRYPOINT")[0]) + json.loads(self.values("CMD")[0])
        self.assertEqual(command[:2], ["fovea", "serve"])
        self.assertLessEqual({a for a in command if a.startswith("--")}, options_of("serve"))
        self.assertIn("--api-key-file", command)
        self.assertEqual(self.values("EXPOSE"), [command[command.index("--port") + 1]])

    def test_it_installs_what_the_program_is_linked_with(self):
        with open("/etc/os-release", encoding="utf-8") as file:
            if "bookworm" not in file.read():
                self.skipTest("the packages' names are those of Debian 12")
        installed = self.values("RUN")[-2].partition("--no-install-recommends")[2]
        wanted = set(installed.partition("&&")[0].split())
        self.assertGreater(len(wanted), 10)
        depends = {}
        for line in run("dpkg-query", "-W", "-f", "${Package}\t${Depends}, ${Pre-Depends}\n"
                        ).stdout.splitlines():
            package, _, others = line.partition("\t")
            depends[package] = re.findall(r"(?:^|[,|])\s*([\w.+-]+)", others)
        there = {"libc6", "libgcc-s1", "libstdc++6"}  # of every image
        waiting = list(wanted)
        while waiting:
            package = waiting.pop()
            if package not in there:
                there.add(package)
                waiting += depends.get(package, [])
        needed = set(re.findall(r"NEEDED\s+(\S+)", run("objdump", "-p", FOVEA).stdout))
        direct = {"poppler-data"}  # read, and not linked
        for line in run("ldd", FOVEA).stdout.splitlines():
            library, _, path = line.strip().partition(" => ")
            path = path.partition(" ")[0]
            if not path.startswith("/") or "/asan" in path:
                continue
            real = os.path.realpath(path)
            owner = run("dpkg", "-S", real).stdout or run("dpkg", "-S",
                                                          real.removeprefix("/usr")).stdout
            if owner:  # else it was built here
                owner = owner.partition(":")[0]
                self.assertIn(owner, there, real)
                if library in needed:
                    direct.add(owner)
        # A build without PDF needs fewer.
        self.assertLessEqual(wanted - direct, {"libpoppler-cpp0v5"} - direct)


if __name__ == "__main__":
    unittest.main()
