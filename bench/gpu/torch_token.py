#!/usr/bin/env python3
"""A whole token of a random model of LongLLaMA-3B's shape with a dense memory, in PyTorch.

  python3 bench/gpu/torch_token.py [--tokens 262144] [--prompt 300] [--steps 60] [--out DIR]

The rival of `gpu_token --mode dense`: the same layers in bfloat16, keys and values of the local
context and of the memory in one buffer a layer, scaled_dot_product_attention over all of it (rooms
that no token has yet included: a mask would rule its fastest kernels out), torch.compile and a CUDA
graph for the step. Time is the host's, the median over the steps, each with
the next id copied to the host. --out writes the model as a folder that fovea loads (config.json,
model.safetensors), for the other side. Prints one JSON object.
"""
import argparse
import json
import os
import struct
import time

import torch
import torch.nn.functional as F

HIDDEN, LAYERS, HEADS, HEAD_DIM, INTERMEDIATE, VOCAB = 3200, 26, 32, 100, 8640, 32000
MEMORY_LAYERS = (6, 12, 18)
THETA, EPS = 10000.0, 1e-6


def make_weights(device):
    generator = torch.Generator(device=device).manual_seed(1)

    def matrix(rows, columns):
        w = torch.empty(rows, columns, device=device, dtype=torch.bfloat16)
        return w.normal_(0, columns ** -0.5, generator=generator)

    weights = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN),
               "lm_head.weight": matrix(VOCAB, HIDDEN),
               "model.norm.weight": torch.ones(HIDDEN, device=device, dtype=torch.bfloat16)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{prefix}self_attn.{name}.weight"] = matrix(HIDDEN, HIDDEN)
        weights[prefix + "mlp.gate_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[prefix + "mlp.up_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[prefix + "mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = torch.ones(HIDDEN, device=device,
                                                           dtype=torch.bfloat16)
    return weights


def write_model(weights, folder):
    os.makedirs(folder, exist_ok=True)
    header, end = {}, 0
    for name, tensor in weights.items():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for tensor in weights.values():
            tensor.cpu().view(torch.int16).numpy().tofile(f)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
              "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
              "max_position_embeddings": 2048, "rms_norm_eps": EPS, "rope_theta": THETA,
              "vocab_size": VOCAB, "tie_word_embeddings": False, "hidden_act": "silu",
              "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=1)


class Step:
    """One token: buffers stay where they are, so that it can be captured."""

    def __init__(self, weights, n_memory, n_prompt, n_steps, device):
        self.w = weights
        # gate and up, and the projections, as one product each.
        for layer in range(LAYERS):
            p = f"model.layers.{layer}."
            weights[p + "qkv"] = torch.cat(
                [weights.pop(f"{p}self_attn.{name}.weight") for name in ("q_proj", "k_proj", "v_proj")])
            weights[p + "gate_up"] = torch.cat(
                [weights.pop(f"{p}mlp.{name}.weight") for name in ("gate_proj", "up_proj")])
        room = n_prompt + n_steps
        self.n_memory = [n_memory if layer in MEMORY_LAYERS else 0 for layer in range(LAYERS)]
        make = lambda n: torch.randn(1, HEADS, n, HEAD_DIM, device=device, dtype=torch.bfloat16)
        self.keys = [make(n + room) for n in self.n_memory]
        self.values = [make(n + room) for n in self.n_memory]
        self.id = torch.zeros(1, device=device, dtype=torch.long)
        self.place = torch.full((1,), n_prompt, device=device, dtype=torch.long)
        self.frequencies = THETA ** (-torch.arange(0, HEAD_DIM, 2, device=device) / HEAD_DIM)

    def rotate(self, x):
        angle = self.place[:, None].float() * self.frequencies
        cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()
        a, b = x[..., :HEAD_DIM // 2], x[..., HEAD_DIM // 2:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def norm(self, x, weight):
        return F.rms_norm(x, (HIDDEN,), weight, EPS)

    def run(self):
        w = self.w
        x = w["model.embed_tokens.weight"][self.id]
        for layer in range(LAYERS):
            p = f"model.layers.{layer}."
            q, k, v = F.linear(self.norm(x, w[p + "input_layernorm.weight"]), w[p + "qkv"]).view(
                1, 3, HEADS, 1, HEAD_DIM).unbind(1)
            n = self.n_memory[layer]
            self.keys[layer].index_copy_(2, n + self.place, self.rotate(k))
            self.values[layer].index_copy_(2, n + self.place, v)
            attended = F.scaled_dot_product_attention(self.rotate(q), self.keys[layer],
                                                      self.values[layer])
            x = x + F.linear(attended.reshape(1, HIDDEN), w[p + "self_attn.o_proj.weight"])
            gate, up = F.linear(self.norm(x, w[p + "post_attention_layernorm.weight"]),
                                w[p + "gate_up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, w[p + "mlp.down_proj.weight"])
        logits = F.linear(self.norm(x, w["model.norm.weight"]), w["lm_head.weight"])
        self.id.copy_(logits.argmax(-1))
        self.place.add_(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=262144)
    parser.add_argument("--prompt", type=int, default=300)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    device = torch.device("cuda")
    weights = make_weights(device)
    if options.out:
        write_model(weights, options.out)
    n_warm = 8
    with torch.inference_mode():
        step = Step(weights, options.tokens, options.prompt, options.steps + 2 * n_warm + 2, device)
        run = torch.compile(step.run, fullgraph=True, options={"triton.cudagraphs": False})
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(n_warm):
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            run()
        times = []
        for i in range(options.steps + n_warm):
            begin = time.perf_counter()
            graph.replay()
            step.id.item()
            if i >= n_warm:
                times.append((time.perf_counter() - begin) * 1e3)
    times.sort()
    print(json.dumps({"bench": "torch_token", "torch": torch.__version__,
                      "gpu": torch.cuda.get_device_name(), "tokens": options.tokens,
                      "ms_per_token": round(times[len(times) // 2], 4)}))


if __name__ == "__main__":
    main()
