"""Writes the files of transformer/: small models and what the published implementation makes of them.

    pip install torch transformers gguf safetensors numpy
    python make_transformer_goldens.py [NAME ...]           # the tiny random models, or these
    python make_transformer_goldens.py --smollm2 FILE.gguf  # smollm2.json, of the default model

Each tiny model is a folder in Hugging Face's layout or a GGUF file, with NAME.json beside it: a
prompt of 40 tokens, the 64 tokens that greedy decoding continues it with, and the smallest gap
between the best and the second logit on the way; and NAME.expected.safetensors: the logits of all
prompt positions [40, 128]. All in float32 on a CPU, from the weights as they are stored (rounded,
quantised). Weights are random; seeds are tried until the gap is at least MIN_MARGIN, so that no
rounding error changes a choice.

qwen3-bf16.gguf holds the weights of qwen3/. qwen3.memory.safetensors: what a memory holds of the
reversed prompt, and the logits of the prompt on top of it, of the model as it is ("plain") and with
the adapter in qwen3-adapter/, whose memory layer rotates nothing and has a gain of keys.
"""

import argparse
import json
import math
import pathlib
import shutil

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.qwen3 import modeling_qwen3

from default_model import gguf_name, load_default_model

OUT = pathlib.Path(__file__).parent / "transformer"
VOCAB, PROMPT, GREEDY, MIN_MARGIN = 128, 40, 64, 0.02
# Of the default model's choices, those with at least this gap count as clear.
CLEAR_MARGIN = 0.005

# The part that all tiny models share.
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "bos_token_id": 125,
    "eos_token_id": 126,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FOLDERS = {
    "llama": (torch.float32, {"model_type": "llama", "rope_theta": 10000.0}),
    # Positions 0 to 103 pass the original 32; wavelengths lie in all three bands.
    "llama3": (
        torch.bfloat16,
        {
            "model_type": "llama",
            "intermediate_size": 96,
            "rope_theta": 500.0,
            "rope_scaling": LLAMA3,
            "tie_word_embeddings": True,
        },
    ),
    # The newer form of the rope parameters, with linear scaling; heads larger than hidden / heads.
    "mistral": (
        torch.float16,
        {
            "model_type": "mistral",
            "head_dim": 32,
            "num_key_value_heads": 1,
            "sliding_window": None,
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        },
    ),
    "qwen2": (
        torch.bfloat16,
        {"model_type": "qwen2", "rope_theta": 1000000.0, "tie_word_embeddings": True},
    ),
    # Heads that are larger together than the hidden size.
    "qwen3": (
        torch.bfloat16,
        {
            "model_type": "qwen3",
            "head_dim": 32,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
        },
    ),
}
# GGUF files of folders' weights, in the type of the folder.
TWINS = {"qwen3-bf16": "qwen3"}
MEMORY_LAYER, KEY_GAIN = 1, [1.5, 0.75]
GGUFS = {
    "llama-f16": (Q.F16, {"model_type": "llama", "rope_theta": 10000.0}),
    "llama-q8_0": (Q.Q8_0, {"model_type": "llama", "rope_theta": 10000.0}),
    "llama-q4_0": (Q.Q4_0, {"model_type": "llama", "rope_theta": 10000.0}),
    # llama3 scaling travels as rope_freqs.weight here.
    "llama3-q4_1": (
        Q.Q4_1,
        {"model_type": "llama", "rope_theta": 500.0, "rope_scaling": LLAMA3},
    ),
    "qwen2-q8_0": (
        Q.Q8_0,
        {"model_type": "qwen2", "rope_theta": 1000000.0, "tie_word_embeddings": True},
    ),
}


def vocabulary():
    """Byte-level BPE of 128 tokens: printable ASCII, space, line feed, merges, control tokens."""
    tokens = [chr(c) for c in range(0x21, 0x7F)] + ["Ġ", "Ċ"]
    merges = []
    words = "Ġt he in er Ġa re on Ġthe Ġs at en Ġo nd Ġw it or es Ġc is Ġb an Ġf ou al ar ing Ġm ed"
    for word in words.split():
        for cut in range(1, len(word)):
            if word[:cut] in tokens and word[cut:] in tokens:
                merges.append((word[:cut], word[cut:]))
                break
        tokens.append(word)
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens += [f"<|{i}|>" for i in range(VOCAB - 3 - len(tokens))]
    return tokens + control, merges, control


def write_tokenizer_json(path):
    tokens, merges, control = vocabulary()
    path.write_text(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [
                    {"id": tokens.index(t), "content": t, "special": True} for t in control
                ],
                "normalizer": None,
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "use_regex": True,
                },
                "post_processor": None,
                "decoder": {"type": "ByteLevel"},
                "model": {
                    "type": "BPE",
                    "unk_token": None,
                    "byte_fallback": False,
                    "ignore_merges": False,
                    "vocab": {t: i for i, t in enumerate(tokens)},
                    "merges": [" ".join(m) for m in merges],
                },
            },
            ensure_ascii=False,
        )
        + "\n"
    )


def random_weights(config, seed):
    """Weights under Hugging Face's names, large enough for logits of several units."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape, scale, mean=0.0):
        return mean + scale * torch.randn(shape, generator=generator)

    model = AutoModelForCausalLM.from_config(config)
    weights = {}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if len(shape) == 1:
            is_bias = name.endswith("bias")
            weights[name] = normal(shape, 0.3 if is_bias else 0.1, 0.0 if is_bias else 1.0)
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = normal(shape, 0.5)
        else:
            weights[name] = normal(shape, 1.3 / math.sqrt(shape[1]))
    return weights


@torch.no_grad()
def run(model, prompt, n_greedy):
    """Logits of the prompt, greedy continuation, and the gap between its two best each time."""
    model.eval()
    out = model(input_ids=torch.tensor([prompt]), use_cache=True)
    logits = out.logits[0].float()
    ids, margins = [], []
    last = logits[-1]
    for _ in range(n_greedy):
        best = torch.topk(last, 2)
        ids.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        out = model(
            input_ids=torch.tensor([[ids[-1]]]),
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        last = out.logits[0, -1].float()
    return logits, ids, margins


def search(name, make):
    """make(seed) → model; the first seed whose choices are all clear."""
    for seed in range(1000):
        model = make(seed)
        prompt = np.random.default_rng(seed).integers(0, VOCAB - 3, PROMPT).tolist()
        logits, ids, margins = run(model, prompt, GREEDY)
        if min(margins) >= MIN_MARGIN and len(set(ids)) > 12:
            break
    else:
        raise RuntimeError(name)
    print(name, "seed", seed, "gap", min(margins), "largest logit", float(logits.abs().max()))
    save_file({"logits": logits.contiguous()}, OUT / f"{name}.expected.safetensors")
    golden = {
        "seed": seed,
        "prompt_ids": prompt,
        "greedy_ids": ids,
        "min_margin": round(min(margins), 4),
    }
    (OUT / f"{name}.json").write_text(json.dumps(golden) + "\n")
    return seed


def load(config, weights):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("lm_head" in m for m in missing), (missing, unexpected)
    model.tie_weights()
    return model.float()


def make_folder(name, dtype, values):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    json_config = {**BASE, **values, "torch_dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(json_config, indent=1) + "\n")
    write_tokenizer_json(folder / "tokenizer.json")
    config = AutoConfig.from_pretrained(folder)

    def weights(seed):
        return {n: w.to(dtype) for n, w in random_weights(config, seed).items()}

    seed = search(name, lambda s: load(config, {n: w.float() for n, w in weights(s).items()}))
    save_file(weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    # The folder as a whole means what was computed.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    golden = json.loads((OUT / f"{name}.json").read_text())
    assert run(model, golden["prompt_ids"], GREEDY)[1] == golden["greedy_ids"]


def permute(weights, n_heads):
    """Rows of rotate-half order to those of interleaved rope, as llama.cpp's conversion does."""
    return (
        weights.reshape(n_heads, 2, weights.shape[0] // n_heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def rope_factors(config):
    """Divisors of the frequencies for llama3 scaling, as llama.cpp's conversion writes them."""
    p = config.rope_parameters
    factors = []
    for i in range(0, config.head_dim, 2):
        wavelength = 2 * math.pi * p["rope_theta"] ** (i / config.head_dim)
        old = p["original_max_position_embeddings"]
        if wavelength < old / p["high_freq_factor"]:
            factors.append(1.0)
        elif wavelength > old / p["low_freq_factor"]:
            factors.append(p["factor"])
        else:
            smooth = (old / wavelength - p["low_freq_factor"]) / (
                p["high_freq_factor"] - p["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / p["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def make_gguf(name, quant, values):
    arch = values["model_type"]
    config = AutoConfig.for_model(**{**BASE, **values})

    def stored_type(weights):
        return quant if weights.ndim == 2 else Q.F32

    def dequantised(seed):
        result = {}
        for n, w in random_weights(config, seed).items():
            array = w.numpy()
            if stored_type(array) != Q.F32:
                array = gguf.dequantize(gguf.quantize(array, quant), quant)
            result[n] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        return result

    seed = search(name, lambda s: load(config, dequantised(s)))
    write_gguf(name, config, random_weights(config, seed), stored_type, values)


def write_gguf(name, config, weights, stored_type, values):
    arch = config.model_type
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if "head_dim" in values:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(values["rope_theta"])
    tokens, merges, control = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in control else 1 for t in tokens])
    writer.add_token_merges([" ".join(m) for m in merges])
    writer.add_bos_token_id(BASE["bos_token_id"])
    writer.add_eos_token_id(BASE["eos_token_id"])
    if "rope_scaling" in values:
        writer.add_tensor("rope_freqs.weight", rope_factors(config))
    for n, w in weights.items():
        array = w.numpy()
        if arch == "llama" and ".q_proj." in n:
            array = permute(array, config.num_attention_heads)
        if arch == "llama" and ".k_proj." in n:
            array = permute(array, config.num_key_value_heads)
        array = np.ascontiguousarray(array)
        kind = stored_type(array)
        writer.add_tensor(gguf_name(n), gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_twin(name, folder):
    _, values = FOLDERS[folder]
    weights = {n: w.float() for n, w in load_file(OUT / folder / "model.safetensors").items()}
    config = AutoConfig.from_pretrained(OUT / folder)
    write_gguf(name, config, weights, lambda array: Q.BF16 if array.ndim == 2 else Q.F32, values)
    golden = json.loads((OUT / f"{folder}.json").read_text())
    (OUT / f"{name}.json").write_text(json.dumps(golden) + "\n")
    shutil.copy(OUT / f"{folder}.expected.safetensors", OUT / f"{name}.expected.safetensors")


@torch.no_grad()
def attend_to_memory(model, document, prompt, rotates, gain):
    """What a memory takes of `document` at MEMORY_LAYER, and the logits of `prompt` on top of it.

    One softmax over the memory's keys, normed and not rotated, and the layer's own."""
    attention = model.model.layers[MEMORY_LAYER].self_attn
    entries = {}
    hooks = [
        attention.k_norm.register_forward_hook(
            lambda module, args, out: entries.update(keys=out[0] * gain[:, None])
        ),
        attention.v_proj.register_forward_hook(
            lambda module, args, out: entries.update(
                values=out[0].view(len(document), -1, attention.head_dim)
            )
        ),
    ]
    if not rotates:

        def rotate_nothing(module, args, kwargs):
            cos, sin = kwargs["position_embeddings"]
            kwargs["position_embeddings"] = (torch.ones_like(cos), torch.zeros_like(sin))
            return args, kwargs

        hooks.append(attention.register_forward_pre_hook(rotate_nothing, with_kwargs=True))
    model(input_ids=torch.tensor([document]))
    for hook in hooks[:2]:
        hook.remove()
    local = modeling_qwen3.eager_attention_forward

    def with_memory(module, query, key, value, mask, **kwargs):
        if module is attention:
            key = torch.cat([entries["keys"].transpose(0, 1)[None], key], dim=2)
            value = torch.cat([entries["values"].transpose(0, 1)[None], value], dim=2)
            seen = torch.zeros(*mask.shape[:3], len(document))
            mask = torch.cat([seen, mask], dim=3)
        return local(module, query, key, value, mask, **kwargs)

    modeling_qwen3.eager_attention_forward = with_memory
    logits = model(input_ids=torch.tensor([prompt])).logits[0]
    modeling_qwen3.eager_attention_forward = local
    for hook in hooks[2:]:
        hook.remove()
    return entries["keys"], entries["values"], logits


def make_memory(name):
    folder = OUT / f"{name}-adapter"
    folder.mkdir(exist_ok=True)
    gain = torch.tensor(KEY_GAIN)
    save_file(
        {f"fot.layers.{MEMORY_LAYER}.memory_key_gain": gain}, folder / "adapter_model.safetensors"
    )
    lora = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": []}
    (folder / "adapter_config.json").write_text(json.dumps(lora) + "\n")
    fot = {
        "mem_layers": [MEMORY_LAYER],
        "mem_positionals": False,
        "window": 64,
        "memory_key_gain": True,
    }
    (folder / "fot_config.json").write_text(json.dumps(fot) + "\n")
    model = AutoModelForCausalLM.from_pretrained(
        OUT / name, dtype=torch.float32, attn_implementation="eager"
    )
    prompt = json.loads((OUT / f"{name}.json").read_text())["prompt_ids"]
    results = {}
    for case, rotates, factors in (("plain", True, torch.ones(2)), ("adapter", False, gain)):
        parts = attend_to_memory(model, prompt[::-1], prompt, rotates, factors)
        for part, tensor in zip(("keys", "values", "logits"), parts):
            results[f"{case}.{part}"] = tensor.contiguous()
    save_file(results, OUT / f"{name}.memory.safetensors")


def make_smollm2(path):
    model = load_default_model(path)
    # ChatML: "Where did Clara Mercer leave the compass?"; and a plain text, long enough for the
    # products of whole prompts.
    golden = json.loads((OUT.parent / "default_adapter.json").read_text())
    prompts = [golden["questions"][1]["prompt_ids"], (golden["first_ids"] * 3)[:80]]
    cases = []
    for prompt in prompts:
        logits, ids, margins = run(model, prompt, GREEDY)
        top = torch.topk(logits[-1], 32)
        clear = next((i for i, m in enumerate(margins) if m < CLEAR_MARGIN), GREEDY)
        print("smollm2", len(prompt), "tokens; clear choices", clear, "gap", min(margins))
        cases.append(
            {
                "prompt_ids": prompt,
                "top_logits": [[int(i), round(float(v), 5)] for v, i in zip(*top)],
                "greedy_ids": ids,
                "n_clear": clear,
            }
        )
    (OUT / "smollm2.json").write_text(json.dumps(cases) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--smollm2", help="the default model's GGUF file")
    args = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    if args.smollm2:
        make_smollm2(args.smollm2)
        return
    wanted = args.names or [*FOLDERS, *TWINS, *GGUFS]
    for name in wanted:
        if name in FOLDERS:
            make_folder(name, *FOLDERS[name])
        elif name in TWINS:
            make_twin(name, TWINS[name])
        else:
            make_gguf(name, *GGUFS[name])
    if "qwen3" in wanted:
        make_memory("qwen3")


main()
