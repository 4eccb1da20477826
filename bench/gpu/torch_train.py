#!/usr/bin/env python3
"""Training speed of PyTorch with torch.compile, for what `fovea train` does in a step.

    python3 bench/gpu/torch_train.py [--fovea-train PROGRAM --model FILE --texts FILE…] [--contexts 32]

A model of SmolLM2-135M's shape with random weights, low-rank updates (rank 16) of all matrices, key
gains, memory layers 9, 15 and 21; a step encodes --batch contexts of --context-tokens up to the last
memory layer, runs as many sequences of --query-tokens which see --contexts of them, takes the
next-token loss of a tenth of their tokens and the contrastive loss on attention mass of eight asks
an entry in layers 15 and 21, and steps AdamW. Batches are random ids that lie on the GPU: nothing is
counted for making them. What is compiled: all that stands between products of attention.

With --fovea-train, that program then trains the real model on real texts at the same sizes, on the
same GPU. Both: the median of the last half of --steps / 10 reports of ten steps. JSON to stdout.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

N_HEADS, N_KV, DIM, N_LAYERS, HIDDEN, MLP, VOCAB = 9, 3, 64, 30, 576, 1536, 49152
MEMORY, MASS = (9, 15, 21), (15, 21)
SHAPES = {"q": (N_HEADS * DIM, HIDDEN), "k": (N_KV * DIM, HIDDEN), "v": (N_KV * DIM, HIDDEN),
          "o": (HIDDEN, N_HEADS * DIM), "gate": (MLP, HIDDEN), "up": (MLP, HIDDEN),
          "down": (HIDDEN, MLP)}


def rms_norm(x, weight):
    return F.rms_norm(x.float(), (HIDDEN,), weight, 1e-5).to(torch.bfloat16)


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def project(x, norm, q, k, v, cos, sin):
    h = rms_norm(x, norm)
    split = lambda w, n: F.linear(h, w).view(*h.shape[:2], n, DIM).transpose(1, 2)
    queries, keys, values = split(q, N_HEADS), split(k, N_KV), split(v, N_KV)
    return rotate(queries, cos, sin), rotate(keys, cos, sin), keys, values


def finish(x, attended, norm, o, gate, up, down):
    x = x + F.linear(attended.transpose(1, 2).reshape(*x.shape[:2], -1), o)
    h = rms_norm(x, norm)
    return x + F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), down)


class Model:
    def __init__(self, n_positions):
        random = lambda *shape: torch.randn(*shape, device="cuda") / math.sqrt(shape[-1])
        self.frozen = [{n: random(*s).bfloat16() for n, s in SHAPES.items()} for _ in range(N_LAYERS)]
        self.low = [{n: (random(16, s[1]).requires_grad_(),
                         torch.zeros(s[0], 16, device="cuda", requires_grad=True))
                     for n, s in SHAPES.items()} for _ in range(N_LAYERS)]
        self.gains = {l: torch.zeros(N_KV, device="cuda", requires_grad=True) for l in MEMORY}
        self.norms = [torch.ones(HIDDEN, device="cuda") for _ in range(2 * N_LAYERS + 1)]
        self.embedding = random(VOCAB, HIDDEN).bfloat16()
        frequencies = 100000.0 ** (-torch.arange(0, DIM, 2, device="cuda") / DIM)
        angles = torch.arange(n_positions, device="cuda")[:, None] * frequencies
        self.cos, self.sin = angles.cos().bfloat16(), angles.sin().bfloat16()
        self.project, self.finish = torch.compile(project), torch.compile(finish)

    def parameters(self):
        return [p for layer in self.low for pair in layer.values() for p in pair] + [*self.gains.values()]

    def weights(self):
        return [{n: w + (self.low[l][n][1] @ self.low[l][n][0] * 2).bfloat16()
                 for n, w in self.frozen[l].items()} for l in range(N_LAYERS)]

    def run(self, ids, weights, n_layers, memory=None, stored=None, on_memory=None):
        x = F.embedding(ids, self.embedding)
        grouped = lambda k: k.repeat_interleave(N_HEADS // N_KV, 1)
        for l in range(n_layers):
            w = weights[l]
            cos, sin = self.cos[:ids.shape[1]], self.sin[:ids.shape[1]]
            q, k, raw, v = self.project(x, self.norms[2 * l], w["q"], w["k"], w["v"], cos, sin)
            if stored is not None and l in MEMORY:
                stored[l] = raw * self.gains[l].exp().bfloat16()[None, :, None, None], v
            if memory is not None and l in MEMORY:
                mk, mv = memory[l]
                if l in MASS:
                    on_memory(q, mk)
                keys, values = torch.cat([grouped(mk), grouped(k)], 2), torch.cat([grouped(mv), grouped(v)], 2)
                a = F.scaled_dot_product_attention(
                    q, keys, values, attn_mask=causal_lower_right(q.shape[2], keys.shape[2]))
            else:
                a = F.scaled_dot_product_attention(q, grouped(k), grouped(v), is_causal=True)
            x = self.finish(x, a, self.norms[2 * l + 1], w["o"], w["gate"], w["up"], w["down"])
        return x


def torch_rate(options):
    torch.backends.cuda.matmul.allow_tf32 = True
    n, d = options.batch, options.contexts
    model = Model(max(options.context_tokens, options.query_tokens))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)
    ids = lambda tokens: torch.randint(VOCAB, (n, tokens), device="cuda")
    seen = (torch.arange(n, device="cuda")[:, None] + torch.arange(d, device="cuda")) % n
    n_memory = d * options.context_tokens
    token = torch.arange(n_memory, device="cuda")

    def step():
        weights, stored, losses = model.weights(), {}, []
        model.run(ids(options.context_tokens), weights, MEMORY[-1] + 1, stored=stored)
        memory = {l: tuple(z.transpose(0, 1)[:, seen].transpose(0, 1).reshape(n, N_KV, n_memory, DIM)
                           for z in stored[l]) for l in MEMORY}
        asked = torch.randint(options.query_tokens, (n, 8), device="cuda")
        begin = torch.randint(options.context_tokens - 100, (n, 8, 1), device="cuda")
        own = ((token >= begin) & (token < begin + 100))[:, None, None]

        def mass_loss(q, keys):
            q = q.gather(2, asked[:, None, :, None].expand(n, N_HEADS, 8, DIM))
            scores = (q.reshape(n, N_KV, -1, DIM) @ keys.transpose(-1, -2)).float() / 8
            scores = scores.view(n, N_KV, -1, 8, n_memory)
            share = scores.masked_fill(~own, -1e30).logsumexp(-1) - scores.logsumexp(-1)
            losses.append(-(share.reshape(n, N_HEADS, 8).logsumexp(1) - math.log(N_HEADS)).mean())

        queries = ids(options.query_tokens)
        x = model.run(queries, weights, N_LAYERS, memory=memory, on_memory=mass_loss)
        hidden = rms_norm(x[:, ::10].reshape(-1, HIDDEN), model.norms[-1])
        loss = F.cross_entropy(F.linear(hidden, model.embedding).float(), queries[:, ::10].reshape(-1))
        (loss + 0.6 * sum(losses) / len(losses)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    rates = []
    for _ in range(options.steps // 10):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(10):
            step()
        torch.cuda.synchronize()
        tokens = 10 * n * (options.context_tokens + options.query_tokens)
        rates.append(tokens / (time.perf_counter() - begin))
    return statistics.median(rates[len(rates) // 2:])


def fovea_rate(options):
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        command = [options.fovea_train, "--out", str(run), "--model", options.model, "--device", "cuda",
                   "--mem-layers", ",".join(map(str, MEMORY)), "--mass-layers", ",".join(map(str, MASS)),
                   "--steps", str(options.steps), "--batch", str(options.batch), "--local", "0",
                   "--contexts", str(options.contexts), "--chat", "chatml", "--max-tokens", "2000000",
                   "--context-tokens", str(options.context_tokens),
                   "--query-tokens", str(options.query_tokens), *options.texts]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rates = [json.loads(line)["tokens_per_s"] for line in (run / "metrics.jsonl").open()]
        return statistics.median(rates[len(rates) // 2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fovea-train", help="build/train/bin/fovea-train")
    parser.add_argument("--model", help="SmolLM2-135M's checkpoint")
    parser.add_argument("--texts", nargs="*", default=[])
    parser.add_argument("--contexts", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--context-tokens", type=int, default=1024)
    parser.add_argument("--query-tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=80)
    options = parser.parse_args()
    result = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "contexts": options.contexts,
              "torch_tokens_per_s": torch_rate(options)}
    torch.cuda.empty_cache()
    if options.fovea_train:
        result["fovea_tokens_per_s"] = fovea_rate(options)
        result["ratio"] = result["fovea_tokens_per_s"] / result["torch_tokens_per_s"]
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
