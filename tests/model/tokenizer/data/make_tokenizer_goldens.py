"""Makes the tokenizer tests' data: strings, small vocabularies, and what the reference libraries
(PyPI: tokenizers, sentencepiece) make of the strings.

    python make_tokenizer_goldens.py [--gguf SmolLM2-135M-Instruct.Q4_1.gguf]

Writes beside itself. With the GGUF file of the default model (PyPI: gguf) also the goldens of its
vocabulary, which itself is not stored. Deterministic: the same library versions give the same files.
"""

import argparse
import contextlib
import io
import json
import pathlib
import random
import tempfile
import unicodedata

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
N_STRINGS = 10_000
N_FULL = 200  # strings whose ids are stored in full
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<tool_call>", "</tool_call>", "<think", "<thinking>", "🦊", "  \t"]

# ---------------------------------------------------------------------------------------- strings

WORDS = """the of and to in a is that it was for on are as with his they at be this have from or one
had by word but not what all were we when your can said there use an each which she do how their if
will up other about out many then them these so some her would make like him into time has look two
more write go see number no way could people my than first water been call who oil its now find long
down day did get come made may part memory window token language model database answer question
passage document archive lighthouse harbour compass falcon encyclopaedia naïve café façade über
Straße smörgåsbord coöperate résumé jalapeño Ångström fiancée Zürich crème brûlée""".split()
SENTENCES = [
    "I'm sure they've said it's what we'd do; you'll see, and she'd've gone if he hadn't.",
    "He SAID 'S and 'T and 'RE, 'VE, 'M, 'LL, 'D; they'Re, we'Ve, I'M, you'LL, O'Brien's dogs' tails.",
    "Le cœur a ses raisons que la raison ne connaît point ; voilà tout.",
    "Übermäßig große Flüsse fließen über die Straße, sagte er – „wirklich“?",
    "Съешь ещё этих мягких французских булок, да выпей же чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを。吾輩は猫である。名前はまだ無い。",
    "我能吞下玻璃而不伤身体。天地玄黃，宇宙洪荒。",
    "다람쥐 헌 쳇바퀴에 타고파. 안녕하세요!",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق",
    "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "আমি কাঁচ খেতে পারি, তাতে আমার কোনো ক্ষতি হয় না।",
    "ယေဓမ္မာ ဟေတုပ္ပဘဝါ တေသံ ဟေတုံ တထာဂတော",
    "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ᛫ᚠᛁᚱᚪ᛫ᚷᛖᚻᚹᛦᛚᚳᚢᛗ",
    "def f(x):\n    return {k: v**2 for k, v in x.items() if v >= 0x1F}  # note\n",
    "for (int i = 0; i < n; ++i) {\n\t\ts += a[i] * b[i];\n}\r\n",
    "SELECT * FROM docs WHERE id='42' AND title LIKE '%fox%' ORDER BY 1 DESC;--",
    "<html><body class=\"x\">&nbsp;&#128512;</body></html>",
    "\\frac{\\partial f}{\\partial x} = \\sum_{i=1}^{n} x_i^2",
    "https://example.org/a/b?c=d&e=%20f#g user@example.com 192.168.0.1:8080",
    "3.14159 2,718,281 1e-9 0xDEADBEEF 1½ ² ³ ① Ⅷ ٣٤٥ १२३ 五百 1st 22nd 1234567890123",
]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👨🏿‍🚀", "🇩🇪", "❤️", "🤷🏽‍♀️", "1️⃣", "☕", "🦊", "🧑‍💻", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\n\n\n", " \n", "\n ", "\u00a0", "\u2003",
          "\u3000", "\u2028", "\u200b", "\u0085", "\u180e", "\v", "\f", "\u1680", "\u202f", "\ufeff",
          "\x1c", "        ", " \t ", "  \t"]
MARKS = ["\u0301", "\u0308", "\u0327", "\u20dd", "\u0e49", "\u093f", "\u064b", "\u200d", "\ufe0f",
         "\u0345"]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["…", "—", "“", "”", "¿", "«", "→", "≤",
                                                            "€", "©", "、", "。", "...", "!!", "=="]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL",
                "'D", "’s", "'ſ", "'x", "''s", "'"]
RANGES = [(0x00C0, 0x024F), (0x0370, 0x03FF), (0x0400, 0x04FF), (0x0590, 0x05FF), (0x0600, 0x06FF),
          (0x0900, 0x097F), (0x0E00, 0x0E7F), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x209F),
          (0x20A0, 0x20BF), (0x2150, 0x218F), (0x2190, 0x21FF), (0x2460, 0x24FF), (0x3040, 0x30FF),
          (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFE00, 0xFEFF), (0xFF00, 0xFFEF),
          (0x10000, 0x100FF), (0x1D400, 0x1D7FF), (0x1F300, 0x1F6FF), (0x20000, 0x2A6DF)]


def is_stable(code_point):
    """Assigned since Unicode 3.2 and of the same category since: every library's tables have it."""
    category = unicodedata.ucd_3_2_0.category(chr(code_point))
    return category not in ("Cn", "Cs", "Co") and category == unicodedata.category(chr(code_point))


def random_character(rng):
    while True:
        low, high = rng.choice(RANGES) if rng.random() < 0.8 else (1, 0xFFFF)
        code_point = rng.randint(low, high)
        if is_stable(code_point):
            return chr(code_point)


def fragment(rng):
    kind = rng.randrange(14)
    if kind <= 3:
        word = rng.choice(WORDS)
        word = rng.choice([word, word, word.capitalize(), word.upper()])
        return word + (rng.choice(CONTRACTIONS) if rng.random() < 0.2 else "")
    if kind == 4:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 5])
    if kind == 5:
        return str(rng.randrange(10 ** rng.randint(1, 12)))
    if kind == 6:
        return "".join(rng.choice(PUNCTUATION) for _ in range(rng.randint(1, 4)))
    if kind == 7:
        return rng.choice(EMOJI)
    if kind == 8:
        return "".join(random_character(rng) for _ in range(rng.randint(1, 4)))
    if kind == 9:
        return rng.choice(WORDS)[:3] + rng.choice(MARKS) * rng.randint(1, 3)
    if kind == 10:
        sentence = rng.choice(SENTENCES)
        begin = rng.randrange(len(sentence))
        return sentence[begin : begin + rng.randint(1, 14)]
    if kind == 11:
        return chr(rng.choice(list(range(0, 32)) + [127, 0x80, 0x9F, 0xAD]))
    if kind == 12:
        return rng.choice(SPECIAL + USER_DEFINED + ["<|im_", "|>", "<s>", "</s>", "<unk>", "<0x0A>",
                                                    "<|", "<think>", "[INST]"])
    return rng.choice(CONTRACTIONS)


def make_strings():
    rng = random.Random(20240607)
    strings = ["", " ", "  ", "\n", "a", "é", "😀", "Hello, world!", "\x00", "   leading", "trailing   "]
    strings += SENTENCES + EMOJI + SPACES
    strings += ["x" + space + "y" for space in SPACES] + [" " + space + "1" for space in SPACES]
    strings += ["it" + c + "k" for c in CONTRACTIONS] + [" " + c for c in CONTRACTIONS]
    # A few long ones: words without an end, runs of spaces, newlines and digits.
    strings += ["ab" * 1000, "the" * 700, "".join(rng.choice("acgt") for _ in range(3000)),
                " " * 1500 + "x", "\n" * 700, " \n" * 400, "7" * 1001, "!?" * 500, "é" * 600,
                "👩‍👩‍👧‍👦" * 40, "中文" * 300]
    while len(strings) < N_STRINGS:
        separator = rng.choice(["", " ", " ", " "])
        strings.append(separator.join(fragment(rng) for _ in range(rng.randint(1, 7))))
    return strings


# ---------------------------------------------------------------------------------------- goldens


def fnv1a(ids):
    """FNV-1a, 32 bits, over the ids' four little-endian bytes."""
    value = 0x811C9DC5
    for i in ids:
        for shift in (0, 8, 16, 24):
            value = ((value ^ (i >> shift & 0xFF)) * 0x01000193) & 0xFFFFFFFF
    return value


def write_golden(name, strings, encode):
    """`encode(text, parse_special)` gives ids. A hash covers both: plain, −1, special parsed."""
    full, hashes = [], []
    for i, text in enumerate(strings):
        plain, special = encode(text, False), encode(text, True)
        hashes.append("%08x" % fnv1a(plain + [0xFFFFFFFF] + special))
        if i < N_FULL:
            full.append(plain)
    joined = "".join(strings)
    golden = {
        "first_ids": full,
        "joined_hash": "%08x" % fnv1a(encode(joined, False) + [0xFFFFFFFF] + encode(joined, True)),
        "hashes": "".join(hashes),
    }
    with open(HERE / f"golden_{name}.json", "w") as f:
        json.dump(golden, f, separators=(",", ":"))


# --------------------------------------------------------------------------------- byte-level BPE

GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
NO_REGEX = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
LLAMA3_REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PRE_TOKENIZERS = {
    "gpt2": GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "llama3": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3_REGEX), "isolated"), NO_REGEX]),
    "qwen2": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3_REGEX.replace("{1,3}", "")), "isolated"), NO_REGEX]),
}


def encode_with(tokenizer):
    def encode(text, parse_special):
        tokenizer.encode_special_tokens = not parse_special
        return tokenizer.encode(text, add_special_tokens=False).ids
    return encode


def make_bpe(name, strings):
    # The vocabulary of "smollm" lacks the bytes that its training text lacked, as SmolLM2's does.
    training = [s for i, s in enumerate(strings) if i % 3 == 0]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if name == "smollm":
        training = [s for s in training if all(ord(c) < 0x3000 and (c >= " " or c in "\t\n") for c in s)]
        alphabet = []
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
    size = {"gpt2": 1000, "smollm": 700, "llama3": 1400, "qwen2": 1200}[name]
    tokenizer.train_from_iterator(
        training, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False,
                                      initial_alphabet=alphabet))
    model = json.loads(tokenizer.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(m) for m in model["merges"]]
    ignore_merges = name == "llama3"
    if ignore_merges:
        # Words that no merges lead to, and one that merges would make otherwise.
        for word in ["Ġencyclopaedia", "Ġlighthouse", "ĠMEMORY", "ZÃ¼rich", "123", "ĊĊĊ", "'LL"]:
            vocab.setdefault(word, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in USER_DEFINED])

    vocab = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocab, key=vocab.get)
    assert [vocab[t] for t in tokens] == list(range(len(tokens)))
    with open(HERE / f"vocabulary_{name}.json", "w") as f:
        json.dump({
            "pre_tokenizer": name,
            "ignore_merges": ignore_merges,
            "tokens": tokens,
            "control": [vocab[t] for t in SPECIAL],
            "user_defined": [vocab[t] for t in USER_DEFINED],
            "merges": [" ".join(m) for m in merges],
        }, f, separators=(",", ":"), ensure_ascii=False)
    write_golden(name, strings, encode_with(tokenizer))


def make_default_model(path, strings):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    types = fields["tokenizer.ggml.token_type"].contents()
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["smollm"]
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])
    write_golden("smollm2_135m_instruct", strings, encode_with(tokenizer))


# ---------------------------------------------------------------------------------- SentencePiece


# Code points and what they become: A, é and e + acute, tab, newline, no-break space, ellipsis, a mark.
NORMALIZATION_RULES = "41\t61\nE9\t65\n65 301\t65\n9\t20\nA\t20\nA0\t20\n2026\t2E 2E 2E\n20DD\t\n"


def make_sentencepiece(name, strings, last_character="\U0010ffff", **options):
    # Control characters stay out of the training text: the trainer reads lines.
    training = [s for i, s in enumerate(strings)
                if i % 3 == 0 and s and "\0" not in s and "\n" not in s and len(s) < 400
                and max(s) <= last_character]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(training), model_writer=model, minloglevel=2, num_threads=1,
        **{"normalization_rule_name": "identity", **options})
    (HERE / f"{name}.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    # The library never parses control pieces: both modes are encoded as plain text here.
    write_golden(name, strings, lambda text, _: processor.encode(text))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", help="the default model's file")
    arguments = parser.parse_args()
    strings = make_strings()
    with open(HERE / "strings.jsonl", "w") as f:
        for text in strings:
            f.write(json.dumps(text, ensure_ascii=False) + "\n")
    for name in PRE_TOKENIZERS:
        make_bpe(name, strings)
    make_sentencepiece(
        "sentencepiece_llama", strings, model_type="bpe", vocab_size=1400, byte_fallback=True,
        split_digits=True, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        character_coverage=0.98, user_defined_symbols=["<tool_call>", "🦊"])
    # Removes spaces, rewrites characters, has unknown ones. (Not a unigram model: those have
    # segmentations of equal score, and versions of the library choose differently among them.)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        # A relative name: the model keeps it.
        pathlib.Path("rules.tsv").write_text(NORMALIZATION_RULES)
        make_sentencepiece(
            "sentencepiece_normalizing", strings, model_type="bpe", vocab_size=600,
            character_coverage=0.98, last_character="\u024f", normalization_rule_tsv="rules.tsv")
    if arguments.gguf:
        make_default_model(arguments.gguf, strings)


if __name__ == "__main__":
    main()
