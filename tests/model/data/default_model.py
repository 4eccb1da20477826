"""The default model, of its GGUF file, as transformers computes it in float32 on a CPU."""

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope_theta=100000.0,
    tie_word_embeddings=True,
)


def gguf_name(name):
    """What GGUF files call a tensor of Hugging Face's name."""
    fixed = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    for hf, ggml in (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ):
        rest = rest.replace(hf, ggml)
    return f"blk.{layer}.{rest}"


def unpermute(weights, n_heads):
    """Rows of interleaved rope, as llama.cpp's conversion leaves them, to those of rotate-half."""
    return (
        weights.reshape(n_heads, weights.shape[0] // n_heads // 2, 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def load_default_model(path):
    model = LlamaForCausalLM._from_config(CONFIG, attn_implementation="eager").float().eval()
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    with torch.no_grad():
        for n, parameter in model.named_parameters():
            tensor = stored.pop(gguf_name(n))
            array = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            if ".q_proj." in n:
                array = unpermute(array, CONFIG.num_attention_heads)
            if ".k_proj." in n:
                array = unpermute(array, CONFIG.num_key_value_heads)
            parameter.copy_(torch.from_numpy(array.reshape(tuple(parameter.shape)).copy()))
    assert not stored, list(stored)
    return model
