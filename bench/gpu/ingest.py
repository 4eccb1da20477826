"""Tokens/s of `fovea ingest --device cuda` against PyTorch running the same layers on the same GPU.

  python3 bench/gpu/ingest.py --fovea build/cuda-release/bin/fovea --model smollm2.gguf

fovea's rate is that of the whole command once the model is loaded: reading, tokens, windows of
1,024 with 128 tokens of the window before, keys and values in the memory folder, index, text index,
everything synced to disk. PyTorch's is the forward pass alone, from token ids that lie on the GPU to
keys and values of the memory layers: SmolLM2-135M's shape with random weights in bfloat16, layers up
to the last memory layer, scaled_dot_product_attention, torch.compile, batches of windows of as many
rows (1,152), the best batch; once with those keys and values copied to pinned host memory, once
without. Sides take turns; medians. The text is made by a seeded chain over the words of this
repository's documents.

With --ncu (Nsight Compute's program) kernels of a short ingest are timed one by one: the share of the
GPU's time outside of matrix products and attention. JSON to stdout, a table to stderr.
"""
import argparse
import collections
import csv
import glob
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WINDOW, OVERLAP = 1024, 128


def make_text(n_bytes, seed):
    """A first-order chain over words, with their punctuation, as often as they follow one another."""
    words = []
    for path in sorted(glob.glob(os.path.join(ROOT, "*.md")) +
                       glob.glob(os.path.join(ROOT, "docs", "*.md"))):
        with open(path, encoding="utf-8") as f:
            words += f.read().split()
    after = collections.defaultdict(list)
    for word, following in zip(words, words[1:]):
        after[word].append(following)
    rng = random.Random(seed)
    word, pieces, size = words[0], [], 0
    while size < n_bytes:
        word = rng.choice(after.get(word) or words)
        end = "\n\n" if word.endswith(".") and rng.random() < 0.2 else " "
        pieces.append(word + end)
        size += len(word) + 1
    return "".join(pieces)


def fovea_ingest(options, texts, device="cuda", wrap=()):
    memory = os.path.join(options.work, "memory")
    shutil.rmtree(memory, ignore_errors=True)
    command = [*wrap, options.fovea, "ingest", "--memory", memory, "--model", options.model,
               "--mem-layers", options.mem_layers, "--window", str(WINDOW), "--overlap",
               str(OVERLAP), "--device", device, "--json", "--quiet", *texts]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {result.returncode}\n{result.stderr}")
    return result.stdout, memory


def fovea_rate(options, texts, device="cuda"):
    out, memory = fovea_ingest(options, texts, device)
    summary = json.loads([line for line in out.splitlines() if line.startswith("{")][-1])
    n_bytes = sum(os.path.getsize(os.path.join(folder, name))
                  for folder, _, names in os.walk(memory) for name in names)
    return {"tokens": summary["encoded_tokens"], "tokens_per_second": summary["tokens_per_second"],
            "bytes_stored": n_bytes}


def kernel_shares(options, text):
    """Seconds of kernels by kind, as ncu times them."""
    out, _ = fovea_ingest(options, [text], wrap=[
        options.ncu, "--csv", "--clock-control", "none", "--cache-control", "none", "--metrics",
        "gpu__time_duration.sum", "--launch-skip", "600", "--launch-count", str(options.kernels)])
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith('"ID"'))
    seconds = collections.Counter()
    by_name = collections.Counter()
    unit = {"ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3}
    for row in csv.DictReader(io.StringIO("\n".join(lines[first:]))):
        if not (row.get("Metric Value") or "").strip():
            continue
        name = row["Kernel Name"]
        taken = float(row["Metric Value"].replace(",", "")) * unit.get(row["Metric Unit"], 1e-9)
        low = name.lower()
        kind = ("attention" if "MmaKernel" in name or "TileKernel" in name else
                "products" if any(k in low for k in ("gemm", "cutlass", "nvjet", "splitk", "cublas"))
                else "other")
        seconds[kind] += taken
        short = re.search(r"(\w+)(<.*)?\(", name.replace("(anonymous namespace)::", ""))
        by_name[short.group(1) if short else name[:40]] += taken
    total = sum(seconds.values())
    return {"seconds": {k: round(v, 6) for k, v in seconds.items()},
            "share_outside": round(seconds["other"] / total, 4),
            "largest": {k: round(v / total, 4) for k, v in by_name.most_common(12)}}


def torch_rates(options):
    import torch
    import torch.nn.functional as F
    hidden, heads, kv_heads, dim, inner, vocab = 576, 9, 3, 64, 1536, 49152
    mem_layers = [int(layer) for layer in options.mem_layers.split(",")]
    torch.manual_seed(0)

    def weight(rows, columns):
        return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) * columns ** -0.5

    kv = kv_heads * dim
    layers = [{"qkv": weight(hidden + 2 * kv, hidden), "o": weight(hidden, hidden),
               "gate_up": weight(2 * inner, hidden), "down": weight(hidden, inner),
               "norm1": torch.ones(hidden, device="cuda", dtype=torch.bfloat16),
               "norm2": torch.ones(hidden, device="cuda", dtype=torch.bfloat16)}
              for _ in range(mem_layers[-1] + 1)]
    embedding = weight(vocab, hidden)
    n = WINDOW + OVERLAP
    angle = torch.outer(torch.arange(n, device="cuda").float(),
                        10000.0 ** (-torch.arange(0, dim, 2, device="cuda").float() / dim))
    cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
    cos, sin = cos.to(torch.bfloat16), sin.to(torch.bfloat16)

    def rotate(x):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(ids):
        x = F.embedding(ids, embedding)
        taken = []
        for i, w in enumerate(layers):
            normed = F.rms_norm(x, (hidden,), w["norm1"], 1e-5)
            qkv = F.linear(normed, w["qkv"] if i < mem_layers[-1] else w["qkv"][hidden:])
            if i == mem_layers[-1]:
                k, v = qkv.split([kv, kv], -1)
                taken += [k[:, OVERLAP:], v[:, OVERLAP:]]
                break
            q, k, v = qkv.split([hidden, kv, kv], -1)
            if i in mem_layers:
                taken += [k[:, OVERLAP:], v[:, OVERLAP:]]
            q = rotate(q.unflatten(-1, (heads, dim)).transpose(1, 2))
            k = rotate(k.unflatten(-1, (kv_heads, dim)).transpose(1, 2))
            v = v.unflatten(-1, (kv_heads, dim)).transpose(1, 2)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + F.linear(a.transpose(1, 2).flatten(2), w["o"])
            normed = F.rms_norm(x, (hidden,), w["norm2"], 1e-5)
            gate, up = F.linear(normed, w["gate_up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, w["down"])
        return torch.stack(taken)

    compiled = torch.compile(forward)
    rates = {}
    with torch.inference_mode():
        for batch in options.batches:
            ids = torch.randint(0, vocab, (batch, n), device="cuda")
            host = torch.empty_like(compiled(ids), device="cpu", pin_memory=True)
            for copies in (False, True):
                def step():
                    out = compiled(ids)
                    if copies:
                        host.copy_(out, non_blocking=True)
                for _ in range(3):
                    step()
                times = []
                for _ in range(options.repeats + 2):
                    torch.cuda.synchronize()
                    begin = time.perf_counter()
                    for _ in range(4):
                        step()
                    torch.cuda.synchronize()
                    times.append((time.perf_counter() - begin) / 4)
                rates[(batch, copies)] = batch * WINDOW / sorted(times)[len(times) // 2]
    best = {copies: max((b for b, c in rates if c == copies), key=lambda b: rates[(b, copies)])
            for copies in (False, True)}
    return {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__,
            "tokens_per_second": round(rates[(best[False], False)]),
            "with_copies_to_host": round(rates[(best[True], True)]),
            "best_batch": best[False],
            "by_batch": {str(b): round(r) for (b, c), r in rates.items() if not c}}


parser = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--fovea", default=os.path.join(ROOT, "build/cuda-release/bin/fovea"))
parser.add_argument("--model", required=True)
parser.add_argument("--mem-layers", default="9,15,21")
parser.add_argument("--work", default="bench-work", help="folder for the memory and texts")
parser.add_argument("--tokens", type=int, default=2000000)
parser.add_argument("--documents", type=int, default=20)
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--batches", default="8,16,32,64", help="of PyTorch, in windows")
parser.add_argument("--torch", type=int, default=1, help="0: without PyTorch")
parser.add_argument("--ncu", default="", help="Nsight Compute's program; empty: no shares")
parser.add_argument("--kernels", type=int, default=700, help="that ncu times")
options = parser.parse_args()
options.batches = [int(b) for b in options.batches.split(",")]
os.makedirs(options.work, exist_ok=True)

texts = []
for d in range(options.documents):
    texts.append(os.path.join(options.work, f"text-{d}.txt"))
    with open(texts[-1], "w", encoding="utf-8") as f:
        f.write(make_text(int(options.tokens / options.documents * 3.9), d))

figures = {"bench": "gpu_ingest", "processors": os.cpu_count(), "documents": options.documents}
figures["fovea"] = {"runs": []}
for repeat in range(options.repeats):
    figures["fovea"]["runs"].append(fovea_rate(options, texts))
    print(f"fovea: {figures['fovea']['runs'][-1]}", file=sys.stderr)
rates = sorted(run["tokens_per_second"] for run in figures["fovea"]["runs"])
figures["fovea"]["tokens_per_second"] = rates[len(rates) // 2]
if options.torch:
    figures["pytorch"] = torch_rates(options)
    figures["ratio"] = round(figures["fovea"]["tokens_per_second"] /
                             figures["pytorch"]["tokens_per_second"], 4)
if options.ncu:
    short = os.path.join(options.work, "short.txt")
    with open(short, "w", encoding="utf-8") as f:
        f.write(make_text(400000, 99))
    figures["kernels"] = kernel_shares(options, short)
print(json.dumps(figures, indent=1))
print(f"\n{'':28}tokens/s", file=sys.stderr)
print(f"{'fovea, stored':28}{figures['fovea']['tokens_per_second']:,.0f}", file=sys.stderr)
if options.torch:
    torch_side = figures["pytorch"]
    print(f"{'PyTorch, forward':28}{torch_side['tokens_per_second']:,} (batch "
          f"{torch_side['best_batch']})\n{'PyTorch, copied to host':28}"
          f"{torch_side['with_copies_to_host']:,}\nratio {figures['ratio']}", file=sys.stderr)
if options.ncu:
    print(f"outside of products and attention: {figures['kernels']['share_outside']:.1%} of the "
          f"GPU's time\n{figures['kernels']['largest']}", file=sys.stderr)
