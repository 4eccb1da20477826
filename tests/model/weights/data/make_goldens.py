"""Writes the files of this folder with the published packages, for fovea's readers to read.

    pip install gguf safetensors numpy ml_dtypes
    python make_goldens.py

types.gguf: a matrix in every element type that fovea reads and a metadata value of every type, by
gguf's writer and quantisation. types.safetensors: the same in floats, F16 and BF16, and as
expected.* what gguf's own dequantisation makes of the quantised ones. llama.gguf and llama/: one
tiny model in both formats, with the rows of q and k in the GGUF file permuted as llama.cpp's
conversion permutes them.
"""

import json
import pathlib

import gguf
import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(4321)


def k_blocks(quant):
    """Two rows of two blocks with every bit at random, but for the halves that scale a block: gguf's
    package reads the K types and does not write them."""
    k_rng = np.random.default_rng(quant.value)
    size = gguf.GGML_QUANT_SIZES[quant][1]
    blocks = k_rng.integers(0, 256, (4, size), dtype=np.uint8)
    halves = k_rng.uniform(-0.1, 0.1, (4, 2)).astype(np.float16).view(np.uint8)
    if quant == Q.Q6_K:
        blocks[:, -2:] = halves[:, :2]
    else:
        blocks[:, :4] = halves
    return blocks.reshape(2, 2 * size)


def types():
    writer = gguf.GGUFWriter(HERE / "types.gguf", "test")
    writer.add_uint8("test.uint8", 200)
    writer.add_int8("test.int8", -100)
    writer.add_uint16("test.uint16", 60000)
    writer.add_int16("test.int16", -30000)
    writer.add_uint32("test.uint32", 4000000000)
    writer.add_int32("test.int32", -2000000000)
    writer.add_uint64("test.uint64", 2**63 + 1)
    writer.add_int64("test.int64", -(2**62))
    writer.add_float32("test.float32", 0.1)
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "naïve ▁ 🦊")
    writer.add_array("test.strings", ["", "a", "▁the", "Ġthe"])
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_array("test.floats", [0.5, -0.25])
    values = rng.standard_normal((3, 64)).astype(np.float32)
    # Values whose blocks have a scale of zero, and one with very small ones.
    values[1, :32] = 0
    values[2, 32:] *= 1e-6
    expected = {}
    for quant in (Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q8_0, Q.Q5_0, Q.Q5_1):
        stored = gguf.quantize(values, quant)
        writer.add_tensor(quant.name, stored, raw_dtype=quant)
        expected["expected." + quant.name] = gguf.dequantize(stored, quant).astype(np.float32)
    for quant in (Q.Q4_K, Q.Q5_K, Q.Q6_K):
        stored = k_blocks(quant)
        writer.add_tensor(quant.name, stored, raw_dtype=quant)
        expected["expected." + quant.name] = gguf.dequantize(stored, quant).astype(np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected["F32"] = values
    expected["F16"] = values.astype(np.float16)
    expected["BF16"] = values.astype(ml_dtypes.bfloat16)
    save_file(expected, HERE / "types.safetensors", metadata={"format": "pt"})


def permute(weights, n_heads):
    """Rows of rotate-half order to those of interleaved rope, as llama.cpp's conversion does."""
    return (
        weights.reshape(n_heads, 2, weights.shape[0] // n_heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def llama():
    hidden, inner, n_heads, n_kv_heads, head_dim, vocab, n_layers = 32, 48, 4, 2, 8, 10, 2
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    shapes["lm_head.weight"] = (vocab, hidden)
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    for layer in range(n_layers):
        for hf, ggml, shape in (
            ("input_layernorm", "attn_norm", (hidden,)),
            ("self_attn.q_proj", "attn_q", (n_heads * head_dim, hidden)),
            ("self_attn.k_proj", "attn_k", (n_kv_heads * head_dim, hidden)),
            ("self_attn.v_proj", "attn_v", (n_kv_heads * head_dim, hidden)),
            ("self_attn.o_proj", "attn_output", (hidden, n_heads * head_dim)),
            ("post_attention_layernorm", "ffn_norm", (hidden,)),
            ("mlp.gate_proj", "ffn_gate", (inner, hidden)),
            ("mlp.up_proj", "ffn_up", (inner, hidden)),
            ("mlp.down_proj", "ffn_down", (hidden, inner)),
        ):
            name = f"model.layers.{layer}.{hf}.weight"
            shapes[name] = shape
            names[name] = f"blk.{layer}.{ggml}.weight"
    tensors = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}

    folder = HERE / "llama"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")

    writer = gguf.GGUFWriter(HERE / "llama.gguf", "llama")
    writer.add_block_count(n_layers)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(head_dim)
    for name, values in tensors.items():
        if ".q_proj." in name:
            values = permute(values, n_heads)
        if ".k_proj." in name:
            values = permute(values, n_kv_heads)
        writer.add_tensor(names[name], np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


types()
llama()
