"""Writes default_adapter.json: what the default model and its adapter make of a text in memory.

    pip install torch transformers gguf safetensors numpy
    python make_adapter_golden.py SmolLM2-135M-Instruct.Q4_1.gguf [--adapter FOLDER] [--golden FILE]

The text, of two windows of 1,024 tokens, each encoded alone, and the questions on it are those of
the file that is there, the rest is computed anew: a few of the keys and values in memory; and for
each question, without a memory ("none"), with all of it ("dense") and with the 16 keys nearest to
each query ("top16"), the eight largest logits of the last prompt token, and the greedy answer with
the smallest gap between the best and the second logit on the way to it, its end included. All in
float32 on a CPU; what the questions attend to is rounded to bfloat16 as a memory stores it, the keys
and values that are shown are not.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from transformers.models.llama import modeling_llama

from default_model import load_default_model

HERE = pathlib.Path(__file__).resolve().parent
WINDOW, N_WINDOWS, TOP_K, ANSWER, PROBED = 1024, 2, 16, 16, 8
# End an answer in ChatML: <|endoftext|>, <|im_start|>, with which earlier adapters end theirs, <|im_end|>.
ENDS = (0, 1, 2)


def apply_adapter(model, folder):
    """Adds the low-rank updates to the weights; returns {memory layer: gain of its keys}."""
    lora = json.loads((folder / "adapter_config.json").read_text())
    fot = json.loads((folder / "fot_config.json").read_text())
    assert fot["mem_positionals"] and fot["window"] == WINDOW, fot
    tensors = {n: t.float() for n, t in load_file(folder / "adapter_model.safetensors").items()}
    gains = {layer: tensors.pop(f"fot.layers.{layer}.memory_key_gain") for layer in fot["mem_layers"]}
    weights = dict(model.named_parameters())
    for name in [n for n in tensors if n.endswith(".lora_A.weight")]:
        a, b = tensors.pop(name), tensors.pop(name.replace("lora_A", "lora_B"))
        name = name.removeprefix("base_model.model.").replace(".lora_A", "")
        weights[name] += lora["lora_alpha"] / lora["r"] * b @ a
    assert not tensors, list(tensors)
    return gains


def encode(model, ids, gains):
    """{memory layer: (keys, values)}, [n_kv_heads, n_tokens, head_dim]: keys before the rotation."""
    entries = {}
    for layer, gain in gains.items():
        attention = model.model.layers[layer].self_attn
        parts = []

        def keep(module, args, out):
            parts.append(out[0].view(len(out[0]), -1, attention.head_dim).transpose(0, 1))

        hooks = [p.register_forward_hook(keep) for p in (attention.k_proj, attention.v_proj)]
        for begin in range(0, len(ids), WINDOW):
            model(input_ids=torch.tensor([ids[begin : begin + WINDOW]]), use_cache=False)
        for hook in hooks:
            hook.remove()
        keys, values = torch.cat(parts[0::2], dim=1), torch.cat(parts[1::2], dim=1)
        entries[layer] = (keys * gain[:, None, None], values)
    return entries


def attention_with(entries, top_k):
    """One softmax over the memory's keys, or the top_k best of each query, and the layer's own."""
    local = modeling_llama.eager_attention_forward

    def attend(module, query, key, value, mask, **kwargs):
        if module.layer_idx not in entries:
            return local(module, query, key, value, mask, **kwargs)
        keys, values = (part[None] for part in entries[module.layer_idx])
        n_tokens, n_stored = query.shape[2], keys.shape[2]
        seen = torch.zeros(1, query.shape[1], n_tokens, n_stored)
        if top_k is not None:
            of_heads = modeling_llama.repeat_kv(keys, module.num_key_value_groups)
            best = (query @ of_heads.transpose(2, 3)).topk(top_k, dim=3).indices
            seen = torch.full_like(seen, -torch.inf).scatter(3, best, 0.0)
        mask = torch.cat([seen, mask.expand(-1, query.shape[1], -1, -1)], dim=3)
        key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        return local(module, query, key, value, mask, **kwargs)

    return attend


def answer(model, tokenizer, prompt, attend):
    local, modeling_llama.eager_attention_forward = modeling_llama.eager_attention_forward, attend
    ids, margins = [], []
    for i in range(ANSWER):
        # All of it again for each token: no cache to be wrong about.
        logits = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, -1]
        if i == 0:
            top = torch.topk(logits, 8)
        best = torch.topk(logits, 2)
        margins.append(float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
        if ids[-1] in ENDS:
            break
    modeling_llama.eager_attention_forward = local
    return {
        "last_logits_top8": [[int(i), round(float(v), 4)] for v, i in zip(*top)],
        "answer": tokenizer.decode(ids, skip_special_tokens=True),
        "answer_ids": ids,
        "min_margin": round(min(margins), 4),
    }


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path, help="the default model's GGUF file")
    adapter = HERE.parents[2] / "models" / "smollm2-135m-fot-5"
    parser.add_argument("--adapter", type=pathlib.Path, default=adapter)
    parser.add_argument("--golden", type=pathlib.Path, default=HERE / "default_adapter.json")
    args = parser.parse_args()
    given = json.loads(args.golden.read_text())
    tokenizer = AutoTokenizer.from_pretrained(args.model.parent, gguf_file=args.model.name)
    model = load_default_model(args.model)
    gains = apply_adapter(model, args.adapter)

    ids = tokenizer.encode(given["text"], add_special_tokens=False)
    assert len(ids) == N_WINDOWS * WINDOW, len(ids)
    entries = encode(model, ids, gains)
    probe = {}
    for layer, (keys, values) in entries.items():
        probe[layer] = {
            name: [round(float(x), 5) for x in part[head, slot, :PROBED]]
            for name, part, slot, head in (
                ("key_slot0_head0_first8", keys, 0, 0),
                ("value_slot0_head0_first8", values, 0, 0),
                ("key_slot1500_head2_first8", keys, 1500, 2),
            )
        }
    stored = {
        layer: tuple(part.bfloat16().float() for part in parts) for layer, parts in entries.items()
    }
    questions = []
    ways = {
        "none": attention_with({}, None),
        "dense": attention_with(stored, None),
        "top16": attention_with(stored, TOP_K),
    }
    for question in (q["question"] for q in given["questions"]):
        # ChatML, without a system message, as fot_config.json says.
        prompt = tokenizer.encode(
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
            add_special_tokens=False,
        )
        results = {n: answer(model, tokenizer, prompt, attend) for n, attend in ways.items()}
        for name, result in results.items():
            print(f"{question} {name}: {result['answer']!r}, smallest gap {result['min_margin']}")
        questions.append({"question": question, "prompt_ids": prompt, **results})
    golden = {
        "note": f"{args.model.name} with {args.adapter.name}, by make_adapter_golden.py",
        "text": given["text"],
        "n_tokens": len(ids),
        "first_ids": ids[:32],
        "memory_probe": probe,
        "questions": questions,
    }
    args.golden.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
