"""Tests of bench/natural.py: its questions, scores and resumption."""
import collections
import glob
import os
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench"))
import common  # noqa: E402
import natural  # noqa: E402
import natural_documents  # noqa: E402
import natural_wide  # noqa: E402

QUESTIONS = natural.read_questions()
WIDE = natural.read_questions(wide=True)
# What the adapters were trained on, and what the next is to be.
TRAINED_ON = glob.glob(os.path.join(common.ROOT, "models/*/questions/packaged-questions*.jsonl.zst"))


def result(document, start, end):
    return {"answer": "an answer", "sources": [{"document": document, "start": start, "end": end}],
            "usage": {"prompt_tokens": 7}}


class QuestionsTest(unittest.TestCase):
    def test_there_are_enough_of_unlike_kinds(self):
        self.assertGreaterEqual(len(QUESTIONS), 120)
        self.assertGreaterEqual(len({q["document"] for q in QUESTIONS}), 30)
        self.assertGreaterEqual(len({q["kind"] for q in QUESTIONS}), 5)

    def test_no_question_is_asked_twice(self):
        self.assertEqual(len({q["question"] for q in QUESTIONS}), len(QUESTIONS))

    def test_each_is_about_a_document_of_its_kind(self):
        for q in QUESTIONS:
            self.assertEqual(natural_documents.DOCUMENTS[q["document"]][0], q["kind"])

    def test_texts_of_the_repository_support_their_answers(self):
        checked = 0
        for q in QUESTIONS:
            kind, package, name = natural_documents.DOCUMENTS[q["document"]]
            if package is None:
                with open(os.path.join(natural_documents.HERE, name), encoding="utf-8") as f:
                    start, end, passage = natural.locate(q, f.read())
                self.assertIn(q["quote"].split()[0], passage)
                self.assertLess(start, end)
                checked += 1
        self.assertGreaterEqual(checked, 30)

    def test_each_kind_has_questions_in_both_halves(self):
        for kind in {q["kind"] for q in QUESTIONS}:
            halves = {natural.half_of(q) for q in QUESTIONS if q["kind"] == kind}
            self.assertEqual(halves, {"tuning", "reported"}, kind)


class WideTest(unittest.TestCase):
    def test_there_are_many_of_unlike_kinds_and_few_of_each_document(self):
        self.assertGreaterEqual(len(WIDE), 240)
        self.assertGreaterEqual(len({q["kind"] for q in WIDE}), 5)
        counts = collections.Counter(q["document"] for q in WIDE)
        self.assertEqual(set(counts), set(natural_wide.DOCUMENTS))
        self.assertLessEqual(max(counts.values()), 8)

    def test_no_question_is_asked_twice_or_in_a_half(self):
        self.assertEqual(len({q["question"] for q in QUESTIONS + WIDE}), len(QUESTIONS) + len(WIDE))

    def test_each_is_about_a_document_of_its_kind(self):
        for q in WIDE:
            self.assertEqual(natural_wide.DOCUMENTS[q["document"]][0], q["kind"])

    def test_answers_are_short_and_the_first_stands_in_the_quote_as_it_is(self):
        for q in WIDE:
            self.assertIn(" ".join(q["answers"][0].split()), " ".join(q["quote"].split()))
            self.assertLessEqual(len(q["answers"][0].split()), 8, q["answers"])
            for answer in q["answers"]:
                self.assertTrue(common.normalize(answer), q["question"])

    def test_texts_of_the_repository_support_their_answers(self):
        checked = 0
        for q in WIDE:
            kind, package, name = natural_wide.DOCUMENTS[q["document"]]
            if package is None:
                with open(os.path.join(natural_documents.HERE, name), encoding="utf-8") as f:
                    natural.locate(q, f.read())
                checked += 1
        self.assertGreaterEqual(checked, 40)

    def test_documents_and_packages_are_not_those_of_the_halves(self):
        self.assertFalse(set(natural_wide.DOCUMENTS) & set(natural_documents.DOCUMENTS))
        self.assertFalse(set(natural_wide.PACKAGES) & set(natural_documents.PACKAGES))
        self.assertEqual({package for _, package, _ in natural_wide.DOCUMENTS.values() if package},
                         set(natural_wide.PACKAGES))

    @unittest.skipUnless(shutil.which("zstd"), "needs the zstd command")
    def test_no_adapter_was_trained_on_packages_of_the_bench(self):
        trained_on = {record["package"] for path in TRAINED_ON for record in common.read_zst(path)}
        self.assertGreaterEqual(len(trained_on), 100)
        self.assertFalse(set(natural_wide.PACKAGES) & trained_on)
        self.assertFalse(set(natural_documents.PACKAGES) & trained_on)


class LocateTest(unittest.TestCase):
    QUESTION = {"document": "d", "quote": "the key lies", "answers": ["key"]}

    def test_a_quote_may_be_broken_over_lines_and_its_range_is_in_bytes(self):
        text = "Größe:\nthe  key\nlies here"
        start, end, passage = natural.locate(self.QUESTION, text)
        self.assertEqual(text.encode()[start:end].decode(), "the  key\nlies")
        self.assertEqual(passage, text)

    def test_a_passage_starts_and_ends_with_whole_words(self):
        text = "word " * 400 + "the key lies" + " word" * 400
        passage = natural.locate(self.QUESTION, text)[2]
        self.assertLess(len(passage), natural.PASSAGE_BYTES + 1)
        self.assertGreater(len(passage), natural.PASSAGE_BYTES - 20)
        self.assertEqual(set(passage.split()), {"word", "the", "key", "lies"})

    def test_a_text_without_the_quote_is_refused(self):
        with self.assertRaises(SystemExit):
            natural.locate(self.QUESTION, "the key lay here")

    def test_a_quote_without_the_answer_is_refused(self):
        with self.assertRaises(SystemExit):
            natural.locate({**self.QUESTION, "answers": ["lock"]}, "the key lies here")


class ResultsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "results.jsonl")
        natural.Results(self.path, ["a"]).add("w", {"question": "q"}, result("d", 5, 9), 1.0,
                                              ("d", 8, 12))

    def test_answers_are_there_in_the_next_run(self):
        row = natural.Results(self.path, ["a"]).rows["w", "q"]
        self.assertEqual((row["answer"], row["found"]), ("an answer", True))

    def test_answers_of_another_binary_are_not_taken(self):
        self.assertEqual(natural.Results(self.path, ["b"]).rows, {})

    def test_a_torn_last_line_is_left_out_and_the_next_one_is_whole(self):
        with open(self.path, "a", encoding="utf-8") as f:
            f.write('{"key": ["a"], "way"')
        results = natural.Results(self.path, ["a"])
        self.assertEqual(list(results.rows), [("w", "q")])
        results.add("w", {"question": "r"}, result("d", 5, 9), 1.0, ("d", 9, 12))
        rows = natural.Results(self.path, ["a"]).rows
        self.assertEqual({key: row["found"] for key, row in rows.items()},
                         {("w", "q"): True, ("w", "r"): False})


class FiguresTest(unittest.TestCase):
    def test_a_number_is_not_contained_in_another(self):
        rows = {"q": {"answer": "version 36", "found": True, "seconds": 1.0}}
        row = natural.figures(rows, [{"question": "q", "answers": ["3"]}])
        self.assertEqual((row["contained"], row["found"]), (0.0, 100.0))
        row = natural.figures(rows, [{"question": "q", "answers": ["3", "36"]}])
        self.assertEqual(row["contained"], 100.0)

    def test_ratios_leave_out_the_oracle_and_ways_with_fewer_questions(self):
        def way(f1, n):
            return {"f1": f1, "contained": f1, "questions": n}
        ratios = natural.ratios({"default": way(30.0, 9), "oracle": way(90.0, 9),
                                 "memory alone": way(80.0, 4), "both 1 on": way(40.0, 9),
                                 "bm25 1 off": way(20.0, 9)})
        self.assertEqual(ratios["f1 against best single way"], {"ratio": 0.75, "way": "both 1 on"})
        self.assertEqual(ratios["f1 against bm25 without memory"],
                         {"ratio": 1.5, "way": "bm25 1 off"})


if __name__ == "__main__":
    unittest.main()
