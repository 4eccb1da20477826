"""What a memory stores, answers and tells."""
import json
import os
import subprocess
import threading
import time

import numpy as np
import pytest

import fovea
from conftest import BAKERY, LIGHTHOUSE, QUESTION


def test_answers_in_pieces_then_names_the_sources(memory):
    stream = memory.ask(QUESTION, max_tokens=24)
    pieces = list(stream)
    assert len(pieces) > 1
    answer = stream.answer
    assert "".join(pieces) == answer.text == str(answer)
    assert "Marta" in answer.text
    assert [type(source) for source in stream.sources] == [fovea.Passage] * len(answer.sources)
    first = answer.sources[0]
    assert (first.source, first.collection, first.reread) == ("lighthouse", "sea", True)
    assert LIGHTHOUSE.encode()[first.start:first.end].decode() == first.text
    assert answer.prompt_tokens > 10 and 0 < answer.completion_tokens <= 24
    assert answer.memory_tokens == memory.stats().tokens
    assert list(stream) == []  # at its end it stays there


def test_answers_as_the_command_line_does(memory, stored):
    program = os.environ["FOVEA"]
    options = ["--max-tokens", "16", "--temperature", "0.7", "--seed", "5", "--collection", "sea"]
    run = subprocess.run([program, "ask", "--memory", stored, "--json", "--quiet", *options, QUESTION],
                         check=True, capture_output=True)
    said = json.loads(run.stdout)
    answer = memory.ask(QUESTION, max_tokens=16, temperature=0.7, seed=5, collections=["sea"]).answer
    assert answer.text == said["answer"]
    assert answer.prompt_tokens == said["usage"]["prompt_tokens"]
    assert [s.text for s in answer.sources] == [s["text"] for s in said["sources"]]


def test_what_is_printed_says_what_it_is(memory):
    for name in fovea.__all__:
        kind = getattr(fovea, name)
        # An answer that is still made has nothing to say.
        if (isinstance(kind, type) and not issubclass(kind, BaseException)
                and kind is not fovea.AnswerStream):
            assert "__repr__" in vars(kind), name
    stats = memory.stats()
    assert repr(stats) == f"<fovea.Stats {stats.documents} documents, {stats.tokens} tokens>"
    assert repr(memory.documents()[0].sources[0]).startswith("<fovea.Source '")
    report = memory.verify()
    assert repr(report) == f"<fovea.VerifyReport ok, {report.documents} documents, 0 damaged, 0 repaired>"


def test_options_reach_the_question(memory):
    assert memory.ask(QUESTION, max_tokens=3).answer.completion_tokens == 3
    assert memory.ask(QUESTION, max_tokens=3).answer.finish_reason == "length"
    only = memory.ask(QUESTION, collections=["land"], max_tokens=4).answer
    assert {source.collection for source in only.sources} <= {"land"}
    assert memory.ask(QUESTION, sources=0, max_tokens=2).sources == []
    alone = memory.ask(QUESTION, use_memory=False, reread=0, max_tokens=4).answer
    assert alone.sources == [] and alone.memory_tokens == 0
    # Drawn tokens depend on the seed, and on nothing else. So hot that even tokens of which the
    # model is sure are left to chance: which they are differs by processor.
    def drawn(seed):
        return memory.ask(QUESTION, temperature=20.0, seed=seed, max_tokens=12).text
    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(1, 5)}) == 4
    audited = memory.ask(QUESTION, reread=0, audit=True, max_tokens=2).answer.audit
    assert len(audited.captured_mass) == len(memory.memory_layers)
    assert memory.ask(QUESTION, stop=["Marta"], max_tokens=24).text.find("Marta") == -1


def test_marks_name_the_sources_of_sentences(memory):
    plain = memory.ask(QUESTION, max_tokens=24).answer
    stream = memory.ask(QUESTION, max_tokens=24, marks=True)
    pieces = list(stream)
    answer = stream.answer
    assert "".join(pieces).rstrip() == answer.text and "Marta" in answer.text
    assert len(answer.marks) >= 1 and plain.marks == []
    for start, end, source in answer.marks:
        assert answer.text.encode()[start:end].decode() == f"[{source}]"
        assert answer.sources[source - 1].source == "lighthouse"
    text = answer.text.encode()
    for start, end, _ in reversed(answer.marks):
        text = text[:start - 1] + text[end:]
    assert text.decode() == plain.text


def test_an_excerpt_is_the_part_that_was_looked_for(emptied):
    weather = "".join(f"On day {i} the weather was grey and nothing happened. " for i in range(40))
    emptied.ingest(texts=[("diary", weather[:1200] + LIGHTHOUSE + weather[1200:])])
    for passage in (emptied.search("lighthouse keeper Marta")[0],
                    emptied.ask(QUESTION, max_tokens=4).sources[0]):
        assert "Marta Lindqvist" in passage.excerpt and passage.excerpt in passage.text
        assert len(passage.excerpt) <= 240 < len(passage.text)


def test_earlier_turns_and_a_system_message_join_the_prompt(memory):
    plain = memory.ask("And her name?", max_tokens=2).answer
    turns = memory.ask("And her name?", history=[("Who lit the lamp?", "The keeper did.")],
                       max_tokens=2).answer
    system = memory.ask("And her name?", system="Answer in the manner of a sailor, briefly.",
                        max_tokens=2).answer
    assert turns.prompt_tokens > plain.prompt_tokens
    assert system.prompt_tokens > plain.prompt_tokens


def test_finds_passages_by_words_by_attention_and_by_both(memory):
    for by in ("bm25", "attention", "both"):
        found = memory.search("poppy-seed rolls on Thursdays", by=by, limit=2)
        assert found, by
        assert found[0].source == "bakery", by
        assert found == sorted(found, key=lambda passage: -passage.score), by
    assert len(memory.search(QUESTION, limit=1)) == 1
    assert {p.source for p in memory.search("the", collections=["sea"])} <= {"lighthouse"}


def test_collections_are_named_by_one_line_of_text(emptied):
    for wrong in ("", " ", "a\nb", "a\0b", "a\\b", "x" * 1001):
        with pytest.raises(fovea.InvalidArgument, match="collection"):
            emptied.ingest(texts=[("note", LIGHTHOUSE)], collection=wrong)
    assert emptied.documents() == []
    name = "Zoë's letters, 1912/13"
    emptied.ingest(texts=[("note", LIGHTHOUSE)], collection=name)
    assert emptied.stats().collections == {name: 1}
    assert emptied.stats().unfinished_documents == emptied.stats().unfinished_tokens == 0


def test_lists_shows_and_deletes_documents(emptied, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/bakery.txt").write_text(BAKERY)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    summary = emptied.ingest(tmp_path, collection="land")
    assert [document.status for document in summary.documents] == ["added"]
    assert summary.encoded_tokens == summary.tokens > 0
    assert [(skipped.kind, skipped.files) for skipped in summary.skipped] == [("PNG image", 1)]
    again = emptied.ingest([tmp_path / "deep"], texts=[("sea", LIGHTHOUSE)], collection="land")
    assert sorted(document.status for document in again.documents) == ["added", "unchanged"]

    assert len(emptied.documents()) == 2 == emptied.stats().documents
    assert emptied.stats().collections == {"land": 2}
    document = next(d for d in emptied.documents("land") if d.source.endswith("bakery.txt"))
    assert document.bytes == len(BAKERY.encode())
    assert emptied.document(document.id[:8]).id == document.id
    assert emptied.text(document.id) == BAKERY
    assert emptied.text(document.id, 4, 10) == "bakery"
    # A range that cuts „ (three bytes) begins after it.
    cut = BAKERY.encode().index("„".encode()) + 1
    assert emptied.text(document.id, cut, cut + 6) == "für"

    gone = emptied.delete(document.id)
    assert [one.id for one in gone] == [document.id]
    assert [one.source for one in emptied.documents()] == ["sea"]
    assert emptied.search("poppy-seed rolls") == []
    emptied.delete(collections=["land"])
    assert emptied.documents() == []


def test_a_text_of_a_known_name_takes_its_place(emptied):
    emptied.ingest(texts=[("note", "The key is in the attic.\n")])
    second = emptied.ingest(texts=[("note", "The key is in the cellar.\n")])
    assert [document.status for document in second.documents] == ["replaced"]
    assert [emptied.text(d.id) for d in emptied.documents()] == ["The key is in the cellar.\n"]


def test_a_document_that_cannot_be_read_does_not_stop_the_others(emptied, tmp_path):
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4\nnothing of a PDF follows\n")
    (tmp_path / "good.txt").write_text(LIGHTHOUSE)
    summary = emptied.ingest([tmp_path / "bad.pdf", tmp_path / "good.txt"])
    assert [d.status for d in summary.documents if d.source.endswith("good.txt")] == ["added"]
    assert [d.source.endswith("bad.pdf") for d in summary.failed] == [True]
    assert summary.failed[0].error


def test_says_how_far_an_ingest_is(emptied):
    here = threading.get_ident()
    updates, documents = [], []

    def progress(update):
        assert threading.get_ident() == here
        updates.append((update.stage, update.done, update.unit))

    emptied.ingest(texts=[("lighthouse", LIGHTHOUSE)], progress=progress,
                   on_document=lambda document: documents.append(document.source))
    assert documents == ["lighthouse"]
    assert any(stage == "encode" and done > 0 and unit == "tokens" for stage, done, unit in updates)


def test_what_a_callback_raises_ends_the_ingest(emptied):
    def stop(_):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        emptied.ingest(texts=[("lighthouse", LIGHTHOUSE)], progress=stop)
    emptied.ingest(texts=[("lighthouse", LIGHTHOUSE)])  # it is of use afterwards
    assert "lighthouse" in [document.source for document in emptied.documents()]


def test_rebuilds_and_verifies(emptied):
    emptied.ingest(texts=[(f"note {i}", f"Note {i}. {LIGHTHOUSE}") for i in range(4)])
    before = emptied.search(QUESTION, limit=4)
    result = emptied.rebuild("exact")
    assert result.generation > 0
    assert [p.document for p in emptied.search(QUESTION, limit=4)] == [p.document for p in before]
    stages = set()
    report = emptied.verify(progress=lambda update: stages.add(update.stage))
    assert report.ok and report.documents == 4 and report.blocks > 0 and {"verify records", "verify texts"} <= stages


def test_finds_and_repairs_damage(tmp_path):
    path = tmp_path / "memory"
    with fovea.Memory.open(path, model="smollm2") as memory:
        memory.ingest(texts=[("lighthouse", LIGHTHOUSE)])
        with pytest.raises(fovea.Unavailable):
            fovea.verify(path, repair=True)  # it is open
    text_index = next(path.glob("*/text-*.sqlite"))
    content = bytearray(text_index.read_bytes())
    content[len(content) // 2] ^= 0xFF
    text_index.write_bytes(content)
    report = fovea.verify(path)
    assert not report.ok
    assert [finding.kind for finding in report.damaged] == ["text_index"]
    report = fovea.verify(path, repair=True)
    assert report.ok and report.repaired
    assert fovea.verify(path).ok


def test_gives_keys_and_values_as_they_are_stored(memory):
    document = next(d for d in memory.documents() if d.source == "lighthouse")
    windows = memory.windows(document.id)
    assert sum(window.tokens for window in windows) == document.tokens
    for layer in memory.memory_layers:
        keys, values = memory.keys(document.id, layer), memory.values(document.id, layer)
        assert len(keys) == len(values) == len(windows)
        for window, key, value in zip(windows, keys, values):
            assert key.shape == value.shape == (3, window.tokens, 64)  # SmolLM2-135M
            assert key.dtype == value.dtype == np.uint16
            assert not key.flags.writeable and not key.flags.owndata
            floats = fovea.to_float32(key)
            assert floats.dtype == np.float32 and floats.shape == key.shape
            assert np.isfinite(floats).all() and floats.std() > 0.01
            assert not np.array_equal(key, value)
    assert not np.array_equal(memory.keys(document.id, layer)[0],
                              memory.keys(document.id, memory.memory_layers[0])[0])


def test_bfloat16_bits_are_the_upper_half_of_a_float32():
    numbers = np.array([0.0, 1.0, -2.5, 3.140625, np.inf], np.float32)
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    assert np.array_equal(fovea.to_float32(bits), numbers)
    assert fovea.to_float32(numbers) is numbers
    with pytest.raises(fovea.InvalidArgument, match="int64"):
        fovea.to_float32(np.zeros(3, np.int64))


def test_equal_texts_have_equal_keys(stored, emptied):
    emptied.ingest(texts=[("again", LIGHTHOUSE)])
    id = emptied.documents()[0].id
    layer = emptied.memory_layers[0]
    with fovea.Memory.open(stored, read_only=True) as memory:
        before = memory.keys(id, layer)[0]
    # The memory is closed, the array stays.
    assert np.allclose(fovea.to_float32(before), fovea.to_float32(emptied.keys(id, layer)[0]),
                       atol=0.1, rtol=0.05)


def test_other_threads_run_while_a_question_is_answered(memory):
    ticks, stop = [], threading.Event()

    def count():
        while not stop.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    begin = time.monotonic()
    answer = memory.ask(QUESTION, max_tokens=48, reread=0).answer  # one call that waits
    end = time.monotonic()
    stop.set()
    counter.join()
    within = [tick for tick in ticks if begin <= tick <= end]
    assert answer.completion_tokens > 4
    gaps = np.diff([begin, *within, end])
    # With the lock held there would be one gap as long as the call.
    assert gaps.max() < 0.5 * (end - begin), (gaps.max(), end - begin)


def test_threads_ask_while_one_ingests(emptied):
    emptied.ingest(texts=[("lighthouse", LIGHTHOUSE)])
    expected = emptied.ask(QUESTION, max_tokens=8).text
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(
        emptied.ask(QUESTION, max_tokens=8, collections=["default"]).text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    emptied.ingest(texts=[(f"note {i}", f"{i}: {BAKERY * 8}") for i in range(8)], collection="land")
    for thread in threads:
        thread.join()
    assert answers == [expected] * 4
