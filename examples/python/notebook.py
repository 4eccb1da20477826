# A notebook as a script: editors and Jupyter (with jupytext) show each "# %%" as a cell.
#
#   python examples/python/notebook.py [FOLDER]     (FOLDER: of the memory; default: notebook-memory)

# %% [markdown]
# # A memory from Python
# The model is SmolLM2-135M-Instruct; `pull_model` downloads it once (94 MB).

# %%
import pathlib
import sys

import numpy as np

import fovea

here = pathlib.Path(__file__).resolve().parent
folder = sys.argv[1] if len(sys.argv) > 1 else "notebook-memory"
fovea.pull_model("smollm2")

# %% [markdown]
# ## Store documents
# Files, folders and texts with names. What is stored already is not encoded again: run the cell twice.

# %%
memory = fovea.Memory.open(folder, model="smollm2")
novel = (here.parent / "flatland.txt").read_text(encoding="utf-8")
summary = memory.ingest(
    texts=[("flatland, the beginning", novel[:20_000]),
           ("minutes", "The harbour board met on 3 May. Marta Albrecht asked for a second crane.\n")],
    progress=lambda update: print(f"\r{update.stage}: {update.done} {update.unit}", end=""))
print("\n", summary, [document.status for document in summary.documents])

# %% [markdown]
# ## Ask, and see what the answer was read from

# %%
answer = memory.ask("Who asked for a second crane?", max_tokens=48)
for piece in answer:
    print(piece, end="", flush=True)
print()
for source in answer.sources:
    print(f"  {source.mass:.2f}  {source.source} {source.start}-{source.end}: {source.text[:60]!r}")

# %% [markdown]
# ## Search without an answer

# %%
for passage in memory.search("the shape of a soldier", by="both", limit=3):
    print(f"  {passage.score:6.2f}  {passage.source}: {passage.text[:60]!r}")

# %% [markdown]
# ## Look at keys
# Of each memory layer: how alike are the keys of neighbouring tokens?

# %%
document = next(d for d in memory.documents() if d.source == "minutes")
for layer in memory.memory_layers:
    keys = np.concatenate([fovea.to_float32(window)
                           for window in memory.keys(document.id, layer)], axis=1)
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)  # [n_kv_heads, n_tokens, head_dim]
    alike = (keys[:, 1:] * keys[:, :-1]).sum(-1).mean(-1)
    print(f"  layer {layer}: mean cosine of neighbours, by KV head: {np.round(alike, 2)}")

# %%
memory.close()
