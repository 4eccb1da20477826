"""A tiny random model and texts, for benches in which what is said does not matter."""
import json
import math
import os
import random
import struct


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file)


def write_tiny_model(folder, says=b""):
    """A LLaMA of two layers with a byte vocabulary. Where `says` is given (a few bytes, each once), it
    says that again and again, whatever it is asked: its layers look up and attend, but add nothing to
    its states, and of a token alone follows the next one."""
    os.makedirs(folder, exist_ok=True)
    hidden, heads, kv_heads, inner, vocab = 32, 4, 2, 64, 257
    head_dim = hidden // heads
    config = {"model_type": "llama", "vocab_size": vocab, "hidden_size": hidden,
              "intermediate_size": inner, "num_hidden_layers": 2, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "tie_word_embeddings": not says, "bos_token_id": 256,
              "eos_token_id": 256}
    write_json(folder, "config.json", config)
    # GPT-2's printable alphabet of bytes.
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    alphabet, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            alphabet[byte] = chr(byte)
        else:
            alphabet[byte] = chr(256 + extra)
            extra += 1
    write_json(folder, "tokenizer.json", {
        "version": "1.0", "normalizer": None,
        "added_tokens": [{"id": 256, "content": "<|end|>", "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {alphabet[b]: b for b in range(256)}, "merges": []}})
    header, data, weights = {}, bytearray(), random.Random(0)

    def draw(*shape):
        n = math.prod(shape)
        if len(shape) == 1:
            return [1.0] * n
        return [weights.gauss(0, shape[-1] ** -0.5) for _ in range(n)]

    def write(name, values, *shape):
        begin = len(data)
        data.extend(struct.pack(f"<{len(values)}f", *values))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}

    def add(name, *shape):
        values = draw(*shape)
        if says and name.endswith(("o_proj.weight", "down_proj.weight")):
            values = [0.0] * len(values)
        write(name, values, *shape)

    embeddings = draw(vocab, hidden)
    if says:
        # A direction for each byte of `says`, and one for all other tokens.
        places = {byte: place for place, byte in enumerate(says)}
        assert len(places) == len(says) < hidden
        last = [0.0] * (vocab * hidden)
        for token in range(vocab):
            embeddings[token * hidden + places.get(token, len(says))] += 4.0
        for place in range(len(says) + 1):
            last[says[place + 1 if place + 1 < len(says) else 0] * hidden + place] = 16.0
        write("lm_head.weight", last, vocab, hidden)
    write("model.embed_tokens.weight", embeddings, vocab, hidden)
    add("model.norm.weight", hidden)
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        add(prefix + "input_layernorm.weight", hidden)
        add(prefix + "post_attention_layernorm.weight", hidden)
        add(prefix + "self_attn.q_proj.weight", hidden, hidden)
        add(prefix + "self_attn.k_proj.weight", kv_heads * head_dim, hidden)
        add(prefix + "self_attn.v_proj.weight", kv_heads * head_dim, hidden)
        add(prefix + "self_attn.o_proj.weight", hidden, hidden)
        add(prefix + "mlp.gate_proj.weight", inner, hidden)
        add(prefix + "mlp.up_proj.weight", inner, hidden)
        add(prefix + "mlp.down_proj.weight", hidden, inner)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def random_text(rng, n_bytes):
    words = []
    size = 0
    while size < n_bytes:
        word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 9)))
        words.append(word)
        size += len(word) + 1
    return " ".join(words) + "."
