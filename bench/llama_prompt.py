"""Prompt evaluation by llama.cpp, for bench/ingest_rate.py: run by a Python that has the package
llama-cpp-python. Reads one JSON request a line, writes one JSON answer a line.

  {"quantize": FILE, "to": FILE, "type": "Q4_0"|"F16"}         makes a requantised file
  {"model": FILE, "text": FILE, "tokens": N, "threads": N, "flash": true}   seconds of one evaluation
"""
import json
import sys
import time

import llama_cpp

import llama_decode

TYPES = {"F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16, "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


def quantize(request):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = TYPES[request["type"]]
    parameters.allow_requantize = True
    status = llama_cpp.llama_model_quantize(request["quantize"].encode(), request["to"].encode(),
                                            parameters)
    return {"status": status}


def evaluate(request):
    n = request["tokens"]
    # llama_cpp.Llama has no argument for it and takes the parameters from here.
    extra = llama_decode.extra_buffers(request["model"])
    llama_cpp.llama_cpp.llama_model_default_params = lambda: llama_decode.model_parameters(extra)
    llm = llama_cpp.Llama(model_path=request["model"], n_ctx=n + 64, n_batch=2048, n_ubatch=512,
                          n_threads=request["threads"], n_threads_batch=request["threads"],
                          flash_attn=request["flash"], verbose=False)
    with open(request["text"], "rb") as f:
        tokens = llm.tokenize(f.read(n * 8), add_bos=False)[:n]
    assert len(tokens) == n, "text too short"
    llm.eval(tokens[:64])  # what the first call makes
    llm.reset()
    start = time.time()
    llm.eval(tokens)
    seconds = time.time() - start
    llm.close()
    return {"seconds": seconds}


for line in sys.stdin:
    request = json.loads(line)
    answer = quantize(request) if "quantize" in request else evaluate(request)
    print(json.dumps(answer), flush=True)
