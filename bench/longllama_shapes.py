"""LongLLaMA's real shapes: load time, peak memory, ingest and answer rates of random checkpoints.

  python3 bench/longllama_shapes.py --work DIR [--shape 3b|7b] [--format safetensors|bin]

Writes a random bfloat16 checkpoint of the published shape (6.9 GB or 13.5 GB; kept in --work), in
shards of about 3 GB, then runs the command line on it: reading the files once, `model info`, `ingest`
of a text, `ask`. Peak memory is that of the process, mapped weights included. What it says means
nothing.
"""
import json
import os
import random
import re
import resource
import struct
import subprocess
import time
import zipfile

import common

options = common.arguments(__doc__, shape="3b", format="safetensors", tokens=4096, max_tokens=16)
SHAPES = {
    "3b": dict(hidden_size=3200, num_hidden_layers=26, intermediate_size=8640, vocab_size=32000,
               mem_layers=[6, 12, 18], rope_theta=10000.0),
    "7b": dict(hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, vocab_size=32016,
               mem_layers=[8, 16, 24], rope_theta=1000000.0),
}
SHARD_BYTES = 3 << 30


def tensors(config):
    hidden, ffn, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            yield f"{prefix}self_attn.{name}_proj.weight", (hidden, hidden)
        yield prefix + "mlp.gate_proj.weight", (ffn, hidden)
        yield prefix + "mlp.up_proj.weight", (ffn, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, ffn)
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def n_values(shape):
    return shape[0] * (shape[1] if len(shape) == 2 else 1)


class Values:
    """bfloat16 bytes: norms are 1, matrices a repeated run of small normal values."""

    def __init__(self):
        rng = random.Random(1)
        floats = struct.pack(f"<{1 << 16}f", *(rng.gauss(0, 0.02) for _ in range(1 << 16)))
        self.run = b"".join(floats[i + 2:i + 4] for i in range(0, len(floats), 4)) * 64

    def pieces(self, shape):
        size = 2 * n_values(shape)
        run = self.run if len(shape) == 2 else b"\x80\x3f" * (len(self.run) // 2)
        for begin in range(0, size, len(run)):
            yield run[:min(len(run), size - begin)]


def shards(config):
    shard, size = [], 0
    for name, shape in tensors(config):
        shard.append((name, shape))
        size += 2 * n_values(shape)
        if size >= SHARD_BYTES:
            yield shard
            shard, size = [], 0
    yield shard


def write_safetensors(path, shard, values):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shard:
        size = 2 * n_values(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, shape in shard:
            for piece in values.pieces(shape):
                f.write(piece)


def write_bin(path, shard, values):
    """What torch.save writes: a zip archive with a pickle of protocol 2."""
    def text(s):
        return b"X" + struct.pack("<I", len(s.encode())) + s.encode()

    def numbers(ns):
        return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in ns) + b"t"

    out = b"\x80\x02}("
    for i, (name, shape) in enumerate(shard):
        strides = (shape[1], 1) if len(shape) == 2 else (1,)
        out += (text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") +
                b"ctorch\nBFloat16Storage\n" + text(str(i)) + text("cpu") +
                b"J" + struct.pack("<i", n_values(shape)) + b"tQK\x00" + numbers(shape) +
                numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR")
    out += b"u."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", out)
        for i, (_, shape) in enumerate(shard):
            # Records begin at multiples of 64 bytes: a field of padding in the header, whose other
            # parts are 30 bytes, the name and 20 bytes of sizes.
            record = zipfile.ZipInfo(f"archive/data/{i}")
            padding = -(archive.fp.tell() + 30 + len(record.filename) + 20 + 4) % 64
            record.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
            with archive.open(record, "w", force_zip64=True) as f:
                for piece in values.pieces(shape):
                    f.write(piece)


def write_tokenizer(folder, vocab_size):
    """Bytes, and names that no text holds."""
    letters = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    vocab = {c: i for i, c in enumerate(letters)}
    for i in range(len(vocab), vocab_size):
        vocab[f"☺{i}"] = i
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump({"version": "1.0", "added_tokens": [],
                   "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
                                     "use_regex": True},
                   "decoder": {"type": "ByteLevel"},
                   "model": {"type": "BPE", "vocab": vocab, "merges": []}}, f)


def write_checkpoint(folder, config):
    os.makedirs(folder)
    values, suffix = Values(), options.format
    stem = {"safetensors": "model", "bin": "pytorch_model"}[options.format]
    parts = list(shards(config))
    weight_map = {}
    for i, shard in enumerate(parts):
        name = f"{stem}-{i + 1:05}-of-{len(parts):05}.{suffix}"
        write = write_safetensors if options.format == "safetensors" else write_bin
        write(os.path.join(folder, name), shard, values)
        weight_map.update({tensor: name for tensor, _ in shard})
    with open(os.path.join(folder, f"{stem}.{suffix}.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": weight_map}, f)
    write_tokenizer(folder, config["vocab_size"])
    heads = 32
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({"model_type": "longllama", "num_attention_heads": heads,
                   "max_position_embeddings": 2048, "last_context_length": 1024,
                   "mem_dtype": "bfloat16", "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
                   "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **config}, f)


def run(*args, stdin=None):
    """(seconds, peak bytes, JSON) of a process."""
    command = [options.fovea, *args, "--json"]
    if options.threads and args[0] != "model":
        command += ["--threads", str(options.threads)]
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)}: status {status}")
    return time.monotonic() - begin, usage.ru_maxrss * 1024, json.loads(output.splitlines()[-1])


config = SHAPES[options.shape]
folder = os.path.join(options.work, f"longllama-{options.shape}-{options.format}")
if not os.path.exists(os.path.join(folder, "config.json")):
    write_checkpoint(folder, config)
weights = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)
              if f.endswith((".safetensors", ".bin")))


def read_files():
    begin = time.monotonic()
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            while f.read(1 << 24):
                pass
    return time.monotonic() - begin


read_files()  # into the file cache, as far as it goes
figures = {"bench": "longllama_shapes", "shape": options.shape, "format": options.format,
           "weight_bytes": weights, "read_files_s": round(read_files(), 2)}
seconds, peak, _ = run("model", "info", folder)
figures["load_s"] = round(seconds, 2)
text = os.path.join(options.work, "shapes.txt")
with open(text, "w") as f:
    f.write(re.sub(r"(.{80})", r"\1\n", "the quick brown fox jumps over the lazy dog " * 4096)
            [:options.tokens])
memory = os.path.join(options.work, f"memory-{options.shape}-{options.format}")
subprocess.run(["rm", "-rf", memory], check=True)
seconds, peak, result = run("ingest", "--memory", memory, "--model", folder, text)
figures["ingest"] = {"tokens": result["tokens"], "seconds": round(seconds, 1),
                     "tokens_per_second": round(result["tokens_per_second"], 2),
                     "peak_bytes_per_weight_byte": round(peak / weights, 3)}
seconds, peak, result = run("ask", "--memory", memory, "--raw", "--reread", "0", "--max-tokens",
                            str(options.max_tokens), "the quick brown fox")
figures["ask"] = {"first_token_s": round(result["timing"]["prefill_ms"] / 1000, 2),
                  "tokens_per_second": round(1000 / result["timing"]["decode_ms_per_token"], 2),
                  "open_s": round(result["timing"]["open_ms"] / 1000, 2),
                  "peak_bytes_per_weight_byte": round(peak / weights, 3)}
print(json.dumps(figures))
