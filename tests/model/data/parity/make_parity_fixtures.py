"""Fixtures of LongLLaMA's public PyTorch code on tiny random models, one folder a configuration.

  python3 make_parity_fixtures.py LONG_LLAMA

LONG_LLAMA is a checkout of github.com/CStanKonrad/long_llama; needs transformers 4.33.2 and torch.
The folder base-f32 has another origin and is left alone. The form is that of base-f32: cases.json
says what was called, cases.safetensors holds inputs and outputs.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file

sys.path.insert(0, sys.argv[1])
from src.configuration_longllama import LongLlamaConfig  # noqa: E402
from src.modeling_longllama import LongLlamaForCausalLM  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
            num_attention_heads=4, max_position_embeddings=64, last_context_length=32,
            mem_layers=[1, 2], mem_dtype="float32", rms_norm_eps=1e-6)
# The name says what the rule is; a name that ends in bf16 has a memory in bfloat16.
CONFIGURATIONS = {
    "memory-bf16": dict(mem_dtype="bfloat16"),
    "no-positionals-last-layer-f32": dict(mem_positionals=False, mem_layers=[3]),
    "grouping-head-dim-20-f32": dict(hidden_size=60, num_attention_heads=3,
                                     mem_attention_grouping=[2, 5]),
    "head-dim-100-f32": dict(hidden_size=200, num_attention_heads=2, num_hidden_layers=2,
                             mem_layers=[1]),
    "no-memory-layers-f32": dict(mem_layers=[]),
    "tied-window-40-f32": dict(tie_word_embeddings=True, max_position_embeddings=40),
    "rope-theta-1e6-f32": dict(rope_theta=1e6, mem_layers=[0, 2]),
}


def sizes(state):
    if state is None:
        return 0, 0
    return (max(layer[0].shape[-2] for layer in state), max(layer[3].shape[-2] for layer in state))


class Fixture:
    def __init__(self, name, changes):
        torch.manual_seed(sum(map(ord, name)))
        self.config = LongLlamaConfig(**{**BASE, **changes})
        self.model = LongLlamaForCausalLM(self.config).eval()
        with torch.no_grad():  # larger than the initialisation: logits of several units
            for key, weight in self.model.named_parameters():
                if weight.dim() == 2:
                    weight.normal_(0, 1.5 / weight.shape[1] ** 0.5)
                else:
                    weight.uniform_(0.5, 1.5)
        self.random = torch.Generator().manual_seed(7)
        self.tensors, self.cases, self.states = {}, [], {}

    def ids(self, *shape):
        return torch.randint(3, self.config.vocab_size, shape, generator=self.random)

    def prompt(self, name, ids, state, use_cache=True, mask=None, **arguments):
        batched = ids.dim() == 2
        with torch.no_grad():
            out = self.model(input_ids=ids if batched else ids[None], past_key_values=state,
                             use_cache=use_cache, attention_mask=mask, **arguments)
        self.tensors[name + ".input_ids"] = ids
        self.tensors[name + ".logits"] = (out.logits if batched else out.logits[0]).contiguous()
        call = {"call": "prompt", "input": name + ".input_ids", "logits": name + ".logits",
                "use_cache": use_cache, **arguments}
        if mask is not None:
            self.tensors[name + ".attention_mask"] = mask
            call["attention_mask"] = name + ".attention_mask"
        call["local_after"], call["memory_after"] = sizes(out.past_key_values)
        return out, call

    def steps(self, name, out, n, mask=None):
        state, logits, chosen, outputs, overflows = out.past_key_values, out.logits[:, -1], [], [], []
        for i in range(n):
            ids = logits.argmax(-1)
            chosen.append(ids)
            if mask is not None:
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            before = sizes(state)[0]
            with torch.no_grad():
                out = self.model(input_ids=ids[:, None], past_key_values=state, use_cache=True)
            state, logits = out.past_key_values, out.logits[:, -1]
            outputs.append(logits)
            if sizes(state)[0] <= before:
                overflows.append(i)
        ids, logits = torch.stack(chosen, 1), torch.stack(outputs, 1)
        if len(ids) == 1:
            ids, logits = ids[0], logits[0]
        self.tensors[name + ".greedy_ids"] = ids.contiguous()
        self.tensors[name + ".step_logits"] = logits.contiguous()
        local, memory = sizes(state)
        return state, {"call": "steps", "ids": name + ".greedy_ids", "logits": name + ".step_logits",
                       "overflow_at_steps": overflows, "local_after": local, "memory_after": memory}

    def case(self, name, n, n_steps, start=None, **arguments):
        state = self.states[start] if start else None
        out, call = self.prompt(name, self.ids(n), state, **arguments)
        self.states[name], steps = self.steps(name, out, n_steps)
        self.cases.append({"name": name,
                           "start": f"state at the end of case {start}" if start else "empty",
                           "calls": [call, steps]})

    def padded(self, name, n, n_padding, n_steps):
        ids, mask = self.ids(2, n), torch.ones(2, n, dtype=torch.long)
        ids[1, :n_padding], mask[1, :n_padding] = 0, 0
        out, call = self.prompt(name, ids, None, mask=mask)
        self.cases.append({"name": name, "start": "empty", "calls": [call]})

    def ingest(self, name, n_document, n_question, n_steps):
        out, document = self.prompt(name + ".doc", self.ids(n_document), None, use_cache=False)
        out, question = self.prompt(name + ".question", self.ids(n_question), out.past_key_values)
        _, steps = self.steps(name, out, n_steps)
        self.cases.append({"name": name, "start": "empty", "calls": [document, question, steps]})

    def merge(self, name, n_a, n_b, n_question):
        a, call_a = self.prompt(name + ".doc_a", self.ids(n_a), None, use_cache=False)
        b, call_b = self.prompt(name + ".doc_b", self.ids(n_b), None, use_cache=False)
        call_a["note"] = call_b["note"] = "ingested alone, from an empty state"
        state = tuple(x[:3] + tuple(torch.cat([u, v], -2) if u.shape[-2] else u
                                    for u, v in zip(x[3:], y[3:]))
                      for x, y in zip(a.past_key_values, b.past_key_values))
        out, question = self.prompt(name + ".question", self.ids(n_question), state)
        question["note"] = "starts from the concatenation of both memories, local context empty"
        self.cases.append({"name": name, "start": "empty", "calls": [call_a, call_b, question]})

    def save(self, folder, name):
        os.makedirs(folder, exist_ok=True)
        self.config.architectures = ["LongLlamaForCausalLM"]
        # One checkpoint in each form that checkpoints have.
        if name.startswith("grouping"):
            self.model.save_pretrained(folder, safe_serialization=False)
        elif name.startswith("head-dim-100"):
            self.model.save_pretrained(folder, safe_serialization=False, max_shard_size="500KB")
        elif name.startswith("rope"):
            self.model.save_pretrained(folder, safe_serialization=True, max_shard_size="20KB")
        else:
            self.model.save_pretrained(folder, safe_serialization=True)
        os.remove(os.path.join(folder, "generation_config.json"))
        save_file({k: v.contiguous() for k, v in self.tensors.items()},
                  os.path.join(folder, "cases.safetensors"))
        with open(os.path.join(folder, "cases.json"), "w") as f:
            json.dump({"config": name, "cases": self.cases}, f, indent=1)


torch.set_num_threads(1)
for name, changes in CONFIGURATIONS.items():
    fixture = Fixture(name, changes)
    window = fixture.config.max_position_embeddings
    fixture.case("n020", 20, 50)
    fixture.case("n200", 200, 40)
    fixture.case("chat.n020.m005", 5, 10, start="n020")
    fixture.case("chat.n020.m150", 150, 36, start="n020")
    fixture.case(f"n{window:03}", window, 4)
    fixture.case(f"n{window + 1:03}", window + 1, 4)
    fixture.case("n090.last25", 90, 40, last_context_length=25)
    fixture.case("n120.last100", 120, 4, last_context_length=100)
    fixture.case("n100.lastwindow", 100, 3, last_context_length=window)
    if fixture.config.mem_layers:
        fixture.ingest("ingest.n150", 150, 50, 36)
        fixture.merge("merge", 70, 45, 24)
        fixture.padded("pad.n100", 100, 11, 0)
    fixture.save(os.path.join(HERE, name), name)
