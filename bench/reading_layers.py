"""Which layers of a model read a passage that stands in its prompt: candidates for memory layers.

  fovea eval facts --texts books.jsonl --tokens 32k --facts 96 --ways passage --answers facts.jsonl
  python3 bench/reading_layers.py --facts facts.jsonl --texts books.jsonl --model DIR [--gguf FILE]

Each fact becomes a sentence between two pieces of a book, the sentence of another fact behind it,
then its question and its answer. In the layers that do not read, question and answer do not attend
to the passage. Told are the mean log-probability of the answers' tokens and the share of them that
is the likeliest, with all layers, without each of them, and with few that are added one by one, the
best each time. Nothing is trained. Needs torch and transformers, for a GGUF gguf and accelerate.
"""
import argparse
import json
import random
import re

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

# Question of `fovea eval facts` -> the sentence that answers it; other kinds are left out.
SENTENCES = [
    (r"Who gave (.*) to (.*)\?", r"{a} gave \1 to \2."),
    (r"Where did (.*) hide (.*)\?", r"\1 hid \2 {a}."),
    (r"What is the password of (.*)\?", r"The password of \1 is {a}."),
    (r"To whom did (.*) give (.*)\?", r"\1 gave \2 to {a}."),
    (r"Who made (.*)\?", r"{a} made \1."),
    (r"Where was (.*) born\?", r"\1 was born {a}."),
    (r"In which town does (.*) work\?", r"\1 works in the town of {a}."),
    (r"Who bought (.*) from (.*)\?", r"{a} bought \1 from \2."),
    (r"What is (.*) called\?", r"\1 is called {a}."),
    (r"Whom did (.*) meet on (.*)\?", r"\1 met {a} on \2."),
]
NEVER = -1e9


def sentence(fact):
    for pattern, words in SENTENCES:
        if re.fullmatch(pattern, fact["question"]):
            return re.sub(pattern, words, fact["question"]).replace("{a}", fact["answers"][0])
    return None


def sequences(facts, books, tokenizer):
    """Ids of passage, question and answer of each fact."""
    rng = random.Random(1)
    told = [(sentence(fact), fact) for fact in facts]
    encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids
    for words, fact in told:
        book = rng.choice(books)
        at = book.find(" ", rng.randrange(len(book) // 8, len(book) - 2000))
        passage = f"{book[at:at + 130]}. {words} {book[at + 200:at + 330]} {rng.choice(told)[0]}"
        question = f"<|im_start|>user\n{fact['question']}<|im_end|>\n<|im_start|>assistant\n"
        yield encode(passage), encode(question), encode(fact["answers"][0])


class Reader:
    """Answers' probabilities where only some layers read the passages."""

    def __init__(self, model, parts):
        self.model, self.parts, self.reading = model, parts, set()
        n, length = len(parts), max(sum(map(len, part)) for part in parts)
        self.ids = torch.zeros(n, length, dtype=torch.long)
        self.positions = torch.arange(length).expand(n, length)
        self.whole = torch.triu(torch.full((length, length), NEVER), 1).repeat(n, 1, 1, 1)
        self.cut = self.whole.clone()
        for i, (passage, question, answer) in enumerate(parts):
            ids = passage + question + answer
            self.ids[i, :len(ids)] = torch.tensor(ids)
            self.cut[i, 0, len(passage):, :len(passage)] = NEVER
        for number, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(self.hook(number), with_kwargs=True)

    def hook(self, number):
        def masked(_, args, named):
            mask = self.whole if number in self.reading else self.cut
            return args, {**named, "attention_mask": mask}
        return masked

    @torch.no_grad()
    def measure(self, layers):
        self.reading = set(layers)
        states = self.model.model(self.ids, position_ids=self.positions,
                                  attention_mask=torch.ones_like(self.ids)).last_hidden_state
        log_probability, likeliest, n = 0.0, 0, 0
        for i, (passage, question, answer) in enumerate(self.parts):
            asked = len(passage) + len(question) - 1
            said = self.model.lm_head(states[i, asked:asked + len(answer)]).log_softmax(-1)
            wanted = torch.tensor(answer)
            log_probability += said[range(len(answer)), wanted].sum().item()
            likeliest += (said.argmax(-1) == wanted).sum().item()
            n += len(answer)
        return round(log_probability / n, 2), round(likeliest / n, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--n", type=int, default=14, help="facts")
    parser.add_argument("--layers", help="measure these alone, such as 8,18,23")
    parser.add_argument("--added", type=int, default=3, help="layers that are added one by one")
    options = parser.parse_args()
    where = {"gguf_file": options.gguf} if options.gguf else {}
    tokenizer = AutoTokenizer.from_pretrained(options.model, **where)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32,
                                                 attn_implementation="eager", **where).eval()
    with open(options.facts) as file:
        facts = [json.loads(line) for line in file]
    facts = [fact for fact in facts if fact["way"] == "passage" and sentence(fact)][:options.n]
    with open(options.texts) as file:
        books = [json.loads(file.readline())["text"] for _ in range(3)]
    reader = Reader(model, list(sequences(facts, books, tokenizer)))
    every = range(len(model.model.layers))
    if options.layers:
        print("with", options.layers, *reader.measure(map(int, options.layers.split(","))))
        return
    print(len(facts), "facts; all layers", *reader.measure(every), "none", *reader.measure([]))
    for result, layer in sorted((reader.measure(set(every) - {i}), i) for i in every):
        print("without", layer, *result, flush=True)
    chosen = []
    for _ in range(options.added):
        tried = sorted(((reader.measure([*chosen, i]), i) for i in every if i not in chosen),
                       reverse=True)
        chosen.append(tried[0][1])
        print("with", ",".join(map(str, sorted(chosen))), *tried[0][0], flush=True)


if __name__ == "__main__":
    main()
