#!/usr/bin/env python3
"""The official openai client against the built server. Environment: FOVEA, the program."""
import signal
import unittest

import openai
from serving import OTTER, PATIENCE_S, TOOLS, Home, long_answer


class OpenAiClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = Home()
        cls.addClassCleanup(cls.home.close)
        cls.home.ingest(cls.home.write("otter.txt", OTTER), cls.home.write("tools.md", TOOLS))
        key = "0123456789abcdef0123"
        keys = cls.home.write("keys", key + "\n")
        cls.server = cls.enterClassContext(cls.home.serve("--api-key-file", keys))
        cls.client = openai.OpenAI(base_url=f"{cls.server.address}/v1", api_key=key, max_retries=0)
        cls.addClassCleanup(cls.client.close)

    def chat(self, **fields):
        return self.client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Where does the otter live?"}],
            **{"max_tokens": 12, **fields})

    def test_lists_the_model(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["tiny"])
        self.assertEqual(self.client.models.retrieve("tiny").id, "tiny")

    def test_chats(self):
        answer = self.chat()
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertTrue(answer.choices[0].message.content)
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
        self.assertEqual(answer.usage.total_tokens,
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)
        source = answer.fovea_sources[0]
        self.assertTrue(source["path"].endswith("/otter.txt"))
        self.assertEqual(OTTER[source["start"]:source["end"]], source["text"])
        again = self.chat()
        self.assertEqual(again.choices, answer.choices)

    def test_streams(self):
        whole = self.chat()
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text.rstrip(), whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage, whole.usage)
        ends = [c for c in chunks if c.choices and c.choices[0].finish_reason]
        self.assertEqual(len(ends), 1)
        self.assertEqual(ends[0].fovea_sources, whole.fovea_sources)

    def test_a_stream_can_be_left(self):
        stream = self.chat(stream=True, max_tokens=1000, temperature=1.5)
        next(iter(stream))
        stream.close()
        self.assertTrue(self.chat().choices)

    def stop_amid_a_stream(self):
        """The exception that a stream ends with whose server is told to stop at its first piece; None
        where the answer was there before."""
        with self.home.serve(memory="other") as server:
            client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)
            self.addCleanup(client.close)
            pieces = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "Otter?"}], stream=True,
                **long_answer(server))
            self.assertTrue(next(iter(pieces)).choices[0].delta.content)
            server.process.send_signal(signal.SIGTERM)
            try:
                for _ in pieces:
                    pass
            except openai.APIError as error:
                return error
            finally:
                server.process.wait(timeout=PATIENCE_S)
        return None

    def test_an_answer_that_the_server_breaks_off_is_an_exception(self):
        self.home.ingest(self.home.path("otter.txt"), memory="other")
        error = None
        for _ in range(10):  # on a busy machine the answer may be there before the signal
            error = error or self.stop_amid_a_stream()
        self.assertIn("the answer was not finished", error.message)
        self.assertEqual(error.code, "cancelled")

    def test_takes_options(self):
        drawn = [self.chat(temperature=1.0, top_p=0.9, seed=seed).choices[0].message.content
                 for seed in (1, 1, 2)]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])
        scoped = self.chat(extra_body={"fovea": {"sources": 0}})
        self.assertEqual(scoped.fovea_sources, [])

    def test_completes_texts(self):
        text = self.client.completions.create(model="tiny", prompt="The otter", max_tokens=10)
        self.assertTrue(text.choices[0].text)
        streamed = "".join(chunk.choices[0].text for chunk in self.client.completions.create(
            model="tiny", prompt="The otter", max_tokens=10, stream=True))
        self.assertEqual(streamed, text.choices[0].text)

    def test_errors_are_the_clients_own(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="gpt-4", messages=[])
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(n=3)
        self.assertIn("n:", caught.exception.message)
        other = self.client.with_options(api_key="wrong-0123456789abcdef")
        with self.assertRaises(openai.AuthenticationError):
            other.models.list()
        with self.assertRaises(openai.NotFoundError):
            self.chat(extra_body={"fovea": {"collections": ["nowhere"]}}, stream=True)


if __name__ == "__main__":
    unittest.main()
