"""What goes wrong is told as the command line tells it, by classes that programs can catch."""
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import fovea
from conftest import ENDLESS, LIGHTHOUSE, QUESTION

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def run_python(program, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
                            **options)


def test_classes_are_fovea_errors_and_pythons_own():
    for name in ("NotFound", "InvalidArgument", "FailedPrecondition", "Unavailable", "DataLoss"):
        assert issubclass(getattr(fovea, name), fovea.Error)
    assert issubclass(fovea.InvalidArgument, ValueError)
    assert issubclass(fovea.NotFound, LookupError)
    assert issubclass(fovea.PermissionDenied, PermissionError)


def test_what_is_not_there_is_named(memory, tmp_path):
    with pytest.raises(fovea.NotFound, match="no memory here"):
        fovea.Memory.open(tmp_path / "none", read_only=True)
    with pytest.raises(fovea.NotFound, match="no memory here"):
        fovea.verify(tmp_path / "none")
    with pytest.raises(fovea.NotFound, match="nobody"):
        fovea.Memory.open(tmp_path / "new", model="nobody")
    assert not (tmp_path / "new").exists()
    with pytest.raises(fovea.NotFound, match="elsewhere"):
        memory.documents("elsewhere")
    with pytest.raises(fovea.NotFound, match="0123456789"):
        memory.text("0123456789")
    with pytest.raises(fovea.NotFound, match="elsewhere"):
        memory.ask(QUESTION, collections=["elsewhere"]).answer
    with pytest.raises(fovea.NotFound, match="elsewhere"):
        list(memory.ask(QUESTION, collections=["elsewhere"]))
    with pytest.raises(fovea.NotFound, match="none-such"):
        fovea.pull_model("none-such")


def test_a_path_where_nothing_is_stops_an_ingest_before_it_begins(emptied, tmp_path):
    (tmp_path / "there.txt").write_text(LIGHTHOUSE)
    with pytest.raises(fovea.NotFound, match="nothing.txt"):
        emptied.ingest([tmp_path / "there.txt", tmp_path / "nothing.txt"])
    assert emptied.documents() == []


def test_arguments_that_make_no_sense_are_refused(memory):
    document = memory.documents()[0].id
    with pytest.raises(fovea.InvalidArgument, match="sideways"):
        memory.ask(QUESTION, mode="sideways")
    with pytest.raises(fovea.InvalidArgument, match="smell"):
        memory.search(QUESTION, by="smell")
    with pytest.raises(fovea.InvalidArgument, match="memory layer"):
        memory.keys(document, 1)
    with pytest.raises(fovea.InvalidArgument):
        memory.text(document, 5, 4)
    with pytest.raises(fovea.InvalidArgument):
        memory.text(document, -1)
    with pytest.raises(fovea.InvalidArgument):
        memory.delete()
    for wrong in ([memory.documents()[0].id], 5, None, b"id"):
        with pytest.raises(TypeError, match="one by one"):
            memory.delete(wrong)
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": -1}, {"top_k": -3},
                  {"stop": [""]}, {"reread": -1}, {"sources": -1}):
        with pytest.raises(fovea.InvalidArgument):
            memory.ask(QUESTION, **wrong).answer
    with pytest.raises(fovea.InvalidArgument):
        memory.search("")
    with pytest.raises(TypeError):
        memory.ask(QUESTION, colour="red")


def test_a_reader_does_not_change_the_memory(memory):
    for change in (lambda: memory.ingest(texts=[("note", "text")]), memory.rebuild,
                   lambda: memory.delete(memory.documents()[0].id)):
        with pytest.raises(fovea.FailedPrecondition, match="read_only"):
            change()


def test_a_closed_memory_says_so(stored):
    memory = fovea.Memory.open(stored, read_only=True)
    with memory as entered:
        assert entered is memory and not memory.closed
    assert memory.closed and "closed" in repr(memory)
    memory.close()  # again: nothing
    for call in (memory.documents, memory.stats, lambda: memory.ask(QUESTION),
                 lambda: memory.search(QUESTION), memory.verify, lambda: memory.keys("0", 9)):
        with pytest.raises(fovea.FailedPrecondition, match="was closed"):
            call()


def test_closing_ends_what_runs_and_a_part_does_not_pass_for_the_whole(stored):
    memory = fovea.Memory.open(stored, read_only=True)
    stream, other, cancelled = (memory.ask(QUESTION, **ENDLESS) for _ in range(3))
    for one in (stream, other, cancelled):
        next(one)
    cancelled.cancel()  # this end was asked for
    begin = time.monotonic()
    memory.close()
    assert time.monotonic() - begin < 5
    with pytest.raises(fovea.Cancelled, match="was closed while this call ran"):
        for _ in stream:  # what had come by then, and then the error
            pass
    with pytest.raises(fovea.Cancelled, match="was closed"):
        next(stream)  # again
    for part in ("answer", "text", "sources"):
        with pytest.raises(fovea.Cancelled, match="was closed"):
            getattr(other, part)
    assert cancelled.answer.finish_reason == "cancelled"


def test_closing_ends_an_ingest_with_the_same_error(tmp_path):
    memory = fovea.Memory.open(tmp_path / "memory", model="smollm2")
    begun, errors = threading.Event(), []

    def ingest():
        try:
            memory.ingest(texts=[(f"note {i}", f"{i} " * 800) for i in range(4000)],
                          progress=lambda _: begun.set())
        except fovea.Cancelled as error:
            errors.append(str(error))

    thread = threading.Thread(target=ingest)
    thread.start()
    assert begun.wait(20)
    memory.close()
    thread.join(timeout=20)
    assert len(errors) == 1 and "was closed while this call ran" in errors[0]


def test_a_question_can_be_cancelled_and_dropped(memory):
    stream = memory.ask(QUESTION, **ENDLESS)
    next(stream)
    stream.cancel()
    assert stream.answer.finish_reason == "cancelled"
    begin = time.monotonic()
    dropped = memory.ask(QUESTION, **ENDLESS)
    del dropped
    assert time.monotonic() - begin < 5
    assert memory.ask(QUESTION, max_tokens=2).text


OPEN = "import sys, fovea\nfovea.Memory.open(sys.argv[1], model='smollm2')\n"


def test_one_process_writes_and_others_read(own, emptied):
    emptied.ingest(texts=[("lighthouse", LIGHTHOUSE)])
    second = run_python(OPEN, own.path)
    _, errors = second.communicate()
    assert second.returncode == 1 and "fovea.Unavailable" in errors, errors
    told = subprocess.run([os.environ["FOVEA"], "ingest", "--memory", own.path, __file__],
                          capture_output=True, text=True, check=False)
    message = told.stderr.strip().splitlines()[-1].removeprefix("fovea: ")
    assert message in errors, (message, errors)
    reader = run_python("import sys, fovea\nm = fovea.Memory.open(sys.argv[1], read_only=True)\n"
                        "print(len(m.documents()))", own.path)
    output, errors = reader.communicate()
    assert output == "1\n", errors


def test_a_reader_follows_the_writer(emptied):
    emptied.ingest(texts=[("first", LIGHTHOUSE)])
    with fovea.Memory.open(emptied.path, read_only=True) as reader:
        assert len(reader.documents()) == 1
        emptied.ingest(texts=[("second", "A hammer drives nails.\n")])
        assert len(reader.documents()) == 2


def test_ctrl_c_ends_an_answer(stored):
    program = ("import sys, fovea\n"
               "memory = fovea.Memory.open(sys.argv[1], read_only=True)\n"
               "stream = memory.ask('Who?', max_tokens=100000, temperature=100.0)\n"
               "try:\n"
               "    next(stream)\n"
               "    print('begun', flush=True)\n"
               "    stream.answer\n"
               "except KeyboardInterrupt:\n"
               "    print(stream.answer.finish_reason, memory.ask('Who?', max_tokens=1).text)\n")
    process = run_python(program, stored)
    assert process.stdout.readline() == "begun\n", process.stderr.read()
    time.sleep(0.2)  # into the call that waits
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert output.startswith("cancelled ") and process.returncode == 0, (output, errors)


def test_ctrl_c_ends_an_ingest_and_what_is_stored_stays(tmp_path):
    program = ("import sys, fovea\n"
               "memory = fovea.Memory.open(sys.argv[1], model='smollm2')\n"
               "memory.ingest(texts=[('first', 'A hammer drives nails.')])\n"
               "texts = [(f'note {i}', f'{i} ' * 800) for i in range(4000)]\n"
               "def tell(update): print(update.stage, flush=True)\n"
               "try:\n"
               "    memory.ingest(texts=texts, progress=tell)\n"
               "except KeyboardInterrupt:\n"
               "    print('stored:', len(memory.documents()))\n")
    process = run_python(program, tmp_path / "memory")
    assert process.stdout.readline() == "encode\n", process.stderr.read()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    last = output.splitlines()[-1]
    assert last.startswith("stored: ") and process.returncode == 0, errors
    assert 1 <= int(last.split()[1]) < 4000
    assert fovea.verify(tmp_path / "memory").ok


def test_a_program_that_ends_with_all_open_ends(stored):
    program = ("import sys, threading, fovea\n"
               "memory = fovea.Memory.open(sys.argv[1], read_only=True)\n"
               "stream = memory.ask('Who?', max_tokens=100000, temperature=100.0)\n"
               "next(stream)\n"
               "print('end')\n")
    process = run_python(program, stored)
    output, errors = process.communicate(timeout=20)
    assert (output, errors, process.returncode) == ("end\n", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_of_fork_is_told_to_open_its_own(stored):
    program = ("import os, sys, fovea\n"
               "memory = fovea.Memory.open(sys.argv[1], read_only=True)\n"
               "if os.fork() == 0:\n"
               "    try:\n"
               "        memory.documents()\n"
               "    except fovea.FailedPrecondition as error:\n"
               "        print(error)\n"
               "    del memory\n"
               "    sys.stdout.flush()\n"
               "    os._exit(0)\n"
               "os.wait()\n"
               "print(len(memory.documents()))\n")
    process = run_python(program, stored)
    output, errors = process.communicate(timeout=20)
    first, second = output.splitlines()
    assert "os.fork()" in first and second == "2", errors


def test_threads_that_wait_are_not_deadlocked_by_a_close(stored):
    memory = fovea.Memory.open(stored, read_only=True)
    ended = []

    def ask():
        try:
            ended.append(memory.ask(QUESTION, **ENDLESS).answer.finish_reason)
        except (fovea.Cancelled, fovea.FailedPrecondition) as error:  # meanwhile, before
            ended.append(type(error).__name__)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    memory.close()
    for thread in threads:
        thread.join(timeout=10)
    assert len(ended) == 3 and set(ended) <= {"Cancelled", "FailedPrecondition"}, ended
