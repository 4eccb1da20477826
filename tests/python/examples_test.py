"""What examples/python shows does what it says."""
import importlib.util
import pathlib
import runpy
import sys
import types


EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples/python"
QUERY = "poppy-seed rolls on Thursdays"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def has(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


class Fields:
    """Takes the place of a class of fields: keeps what it is given."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


def stand_in(monkeypatch, name, **contents):
    """A module with the few names that an example takes from a package that is not installed."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    sys.modules[name].__dict__.update(contents)


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["notebook.py", str(tmp_path / "memory")])
    runpy.run_path(str(EXAMPLES / "notebook.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert "Albrecht" in output and "minutes 0-" in output and "mean cosine" in output


def test_langchain_finds_passages(memory, monkeypatch):
    if has("langchain_core"):
        found = load("langchain_retriever").FoveaRetriever(memory=memory, limit=2).invoke(QUERY)
    else:
        # What langchain_core.retrievers asks of a retriever: fields, and _get_relevant_documents.
        stand_in(monkeypatch, "langchain_core.documents", Document=Fields)
        stand_in(monkeypatch, "langchain_core.retrievers", BaseRetriever=Fields)
        monkeypatch.setattr(Fields, "by", "both", raising=False)
        retriever = load("langchain_retriever").FoveaRetriever(memory=memory, limit=2)
        found = retriever._get_relevant_documents(QUERY, run_manager=None)
    assert "poppy-seed" in found[0].page_content
    assert found[0].metadata["source"] == "bakery" and found[0].metadata["end"] > 0


def test_llama_index_finds_passages(memory, monkeypatch):
    if has("llama_index.core"):
        found = load("llama_index_retriever").FoveaRetriever(memory, limit=2).retrieve(QUERY)
    else:
        stand_in(monkeypatch, "llama_index.core.schema", NodeWithScore=Fields, TextNode=Fields)
        stand_in(monkeypatch, "llama_index.core.retrievers", BaseRetriever=Fields)
        retriever = load("llama_index_retriever").FoveaRetriever(memory, limit=2)
        found = retriever._retrieve(Fields(query_str=QUERY))
    assert "poppy-seed" in found[0].node.text and found[0].score > 0
    assert found[0].node.metadata["source"] == "bakery"
