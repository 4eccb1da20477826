#!/usr/bin/env python3
"""Manual pages and shell completions, against what `--help` says of each command.

Environment: FOVEA, the program. Standard library only.
"""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

FOVEA = os.environ["FOVEA"]


def run(*arguments, **more):
    return subprocess.run(arguments, capture_output=True, text=True, encoding="utf-8", check=False,
                          **more)


def read_help(*path):
    """{command: its options}, for a command and those below it."""
    done = run(FOVEA, *path, "--help")
    assert done.returncode == 0, f"{path}: {done.stderr}"
    options = re.findall(r"^  ((?:-\w,)?--[\w-]+)", done.stdout, re.MULTILINE)
    found = {("fovea", *path): {name for names in options for name in names.split(",")}}
    _, _, commands = done.stdout.partition("\nSubcommands:\n")
    for name in re.findall(r"^  ([\w-]+)  ", commands.partition("\n\n")[0], re.MULTILINE):
        # Its help is another program's, which not every build has.
        found |= {("fovea", "train"): set()} if name == "train" else read_help(*path, name)
    return found


class ManualTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="fovea-manual-")
        cls.addClassCleanup(cls.folder.cleanup)
        done = run(FOVEA, "manual", cls.folder.name)
        assert done.returncode == 0, done.stderr
        cls.commands = read_help()

    def read(self, name):
        with open(os.path.join(self.folder.name, name), encoding="utf-8") as file:
            return file.read()

    def test_help_names_commands_and_options(self):
        # What the other tests compare with is really there.
        self.assertIn("--reread-by", self.commands["fovea", "ask"])
        self.assertIn("-h", self.commands["fovea", "docs", "delete"])
        self.assertIn(("fovea", "eval", "passkey"), self.commands)
        self.assertNotIn(("fovea", "manual"), self.commands)
        self.assertGreater(len(self.commands), 25)

    def test_manual_pages_name_every_command_and_option(self):
        for path, options in self.commands.items():
            page = self.read(f"man/man1/{'-'.join(path[:2])}.1").replace("\\-", "-")
            _, found, section = page.partition(f"\n.SS {' '.join(path)}\n")
            if len(path) > 2:
                self.assertTrue(found, path)
                page = section.partition("\n.SS ")[0]
            for option in options:
                self.assertIn(f"\\fB{option}\\fR", page, path)
            if len(path) == 2:
                self.assertIn(f"\\fB{' '.join(path)}\\fR",
                              self.read("man/man1/fovea.1").replace("\\-", "-"))

    def test_manual_pages_are_sound_roff(self):
        if not shutil.which("groff"):
            self.skipTest("groff is not installed")
        folder = os.path.join(self.folder.name, "man/man1")
        for name in os.listdir(folder):
            done = run("groff", "-Kutf8", "-man", "-Tutf8", "-ww", os.path.join(folder, name))
            self.assertEqual((done.returncode, done.stderr), (0, ""), name)
        text = run("groff", "-Kutf8", "-man", "-Tascii", "-P-cbou", os.path.join(folder, "fovea-ask.1")).stdout
        self.assertIn("--reread-by HOW", text)
        self.assertIn("fovea ask --memory notes", text)

    def complete(self, *words):
        """What bash offers for the last of the words."""
        script = """
            source "$1"; shift
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _fovea
            printf '%s\\n' "${COMPREPLY[@]}"
        """
        done = run("bash", "-euc", script, "bash",
                   os.path.join(self.folder.name, "bash-completion/completions/fovea"), *words)
        self.assertEqual((done.returncode, done.stderr), (0, ""), words)
        return set(done.stdout.split())

    def test_bash_completes_every_command_and_option(self):
        for path, options in self.commands.items():
            self.assertEqual(self.complete(*path, "-"), options, path)
            below = {other[-1] for other in self.commands if other[:-1] == path}
            self.assertEqual(self.complete(*path, ""), below, path)

    def test_bash_completes_what_an_option_takes(self):
        self.assertEqual(self.complete("fovea", "ask", "--mode", ""),
                         {"dense", "exact", "approximate"})
        self.assertEqual(self.complete("fovea", "ask", "--mode", "e"), {"exact"})
        # What takes a file is left to the shell.
        self.assertEqual(self.complete("fovea", "ask", "--memory", ""), set())
        self.assertEqual(self.complete("fovea", "ask", "--memory", "a", "--quiet", "--mo"),
                         {"--mode", "--model"})

    def test_zsh_has_a_function_for_every_command(self):
        path_of_script = os.path.join(self.folder.name, "zsh/site-functions/_fovea")
        script = self.read("zsh/site-functions/_fovea")
        self.assertTrue(script.startswith("#compdef fovea\n"))
        for path, options in self.commands.items():
            _, found, body = script.partition(f"\n{'_'.join(['', *path])}() {{\n")
            self.assertTrue(found, path)
            body = body.partition("\n}\n")[0]
            for option in options:
                self.assertRegex(body, rf"'\*?{option}\[", path)
        if not shutil.which("zsh"):
            self.skipTest("zsh is not installed: its syntax is not checked")
        done = run("zsh", "-n", path_of_script)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
