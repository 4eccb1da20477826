"""The built package, over memories of the default model, which has to be installed."""
import os
import pathlib

import pytest

import fovea

HOME = pathlib.Path(os.environ.get("FOVEA_HOME", "~/.local/share/fovea")).expanduser()
MODEL = HOME / "models/SmolLM2-135M-Instruct.Q4_1.gguf"

LIGHTHOUSE = ("The keeper of the lighthouse on the grey rock was called Marta Lindqvist. Every "
              "evening she lit the lamp, and every morning she wrote the names of the ships that "
              "had passed into a green book.\n")
BAKERY = ("The bakery in Mill Lane was run by Ottokar Brandt. He baked rye bread on Mondays and "
          "poppy-seed rolls on Thursdays, and closed on Sundays — „für die Hefe“, he said.\n")
QUESTION = "Who was the keeper of the lighthouse?"
# At this temperature all tokens are as likely: the answer goes on until something ends it.
ENDLESS = {"temperature": 100.0, "max_tokens": 100_000}


def pytest_collection_modifyitems(items):
    if not MODEL.exists():
        skip = pytest.mark.skip(reason="`fovea model pull smollm2` gets the default model")
        for item in items:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """A folder with two documents, in the collections sea and land. Not to be changed."""
    path = tmp_path_factory.mktemp("stored") / "memory"
    with fovea.Memory.open(path, model="smollm2") as memory:
        memory.ingest(texts=[("lighthouse", LIGHTHOUSE)], collection="sea")
        memory.ingest(texts=[("bakery", BAKERY)], collection="land")
    return path


@pytest.fixture(scope="session")
def memory(stored):
    """That memory, opened for questions."""
    with fovea.Memory.open(stored, read_only=True) as memory:
        yield memory


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    """A memory that a test may change, and leaves empty."""
    with fovea.Memory.open(tmp_path_factory.mktemp("own") / "memory", model="smollm2") as memory:
        yield memory


@pytest.fixture
def emptied(own):
    yield own
    ids = [document.id for document in own.documents()]
    if ids:
        own.delete(*ids)
