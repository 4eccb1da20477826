"""Single-token steps of llama.cpp, for bench/decode.py and bench/context_rate.py; its server, for
bench/serve_llama.py.

Those run under any Python and use the classes at the end; what calls llama.cpp runs in a process of
its own, by a Python that has the package llama-cpp-python.

A deep context is made in a time that does not grow with the square of its length: a piece of the
text is evaluated, and the state of its cells is loaded again and again by llama.cpp itself
(llama_state_seq_set_data, once a copy), each copy at the positions behind the last. A step takes as
long as after an evaluation of as many tokens, since every cell is read and multiplied whatever lies
in it; bench/context_rate.py --check measures that.
"""
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

FTYPES = {"Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0", "F16": "LLAMA_FTYPE_MOSTLY_F16"}


# --- what runs in the process with llama-cpp-python ---
def requantise(source, target, ftype):
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, FTYPES[ftype])
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), params) != 0:
        sys.exit(f"{source}: llama.cpp cannot requantise it")


def extra_buffers(model):
    """Whether llama.cpp may use its extra buffer types, the one that needs AMX among them: on some
    machines the kernel grants AMX and its instructions are illegal all the same. A child process
    evaluates a batch with them; nothing but running them tells."""
    result = subprocess.run([sys.executable, __file__, "probe", model], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    if result.returncode not in (0, -signal.SIGILL):
        sys.exit(f"{model}: llama.cpp's probe ended with exit status {result.returncode}; run "
                 f"{sys.executable} {__file__} probe {model}")
    return result.returncode == 0


def model_parameters(extra):
    import llama_cpp

    parameters = llama_cpp.llama_model_default_params()
    parameters.use_extra_bufts = extra
    return parameters


def probe(model):
    """Dies with SIGILL where an instruction of the extra buffers does."""
    import llama_cpp

    weights = llama_cpp.llama_model_load_from_file(model.encode(), model_parameters(True))
    context = llama_cpp.llama_init_from_model(weights, llama_cpp.llama_context_default_params())
    ids = (llama_cpp.llama_token * 64)(*range(64))  # a batch, since one token takes another path
    if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(ids))):
        sys.exit("llama_decode failed")


def http_server(model, arguments):
    """llama-cpp-python's server, without the extra buffers where they cannot be used."""
    import llama_cpp.llama_cpp as api
    import llama_cpp.server.__main__

    extra = extra_buffers(model)
    print(json.dumps({"extra_buffers": extra}), flush=True)
    if not extra:
        default_params = api.llama_model_default_params

        def params_without():
            params = default_params()
            params.use_extra_bufts = False
            return params

        api.llama_model_default_params = params_without
    sys.argv = ["llama_cpp.server", "--model", model, *arguments]
    llama_cpp.server.__main__.main()


class Context:
    """A context of llama.cpp whose first `depth` positions are filled with a text's tokens."""

    def __init__(self, model, threads, flash, cache, prompt, n_tokens, depth=0, piece=0, text=""):
        import llama_cpp

        self.api = llama_cpp
        self.n_tokens, self.depth = n_tokens, depth
        # Kept: llama.cpp calls it for as long as the process lives.
        self.log = llama_cpp.llama_log_callback(lambda level, message, data: None)
        llama_cpp.llama_log_set(self.log, None)
        self.model = llama_cpp.llama_model_load_from_file(model.encode(),
                                                          model_parameters(extra_buffers(model)))
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = depth + piece + n_tokens + 512  # piece: the last copy may stand out
        params.n_seq_max = 2 if piece else 1
        params.kv_unified = True  # one run of cells for both sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = (llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else
                                  llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        params.type_k = params.type_v = getattr(llama_cpp, f"GGML_TYPE_{cache}")
        self.n_batch = params.n_batch
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"{model}: llama.cpp makes no context of {params.n_ctx} tokens")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.greedy = llama_cpp.llama_sampler_init_greedy()
        self.prompt = self.tokenize(prompt)
        if depth:
            with open(text, encoding="utf-8") as f:
                tokens = self.tokenize(f.read())
            n_evaluated = piece or depth
            if len(tokens) < n_evaluated:
                sys.exit(f"{text}: {len(tokens)} tokens, want {n_evaluated}")
            self.evaluate(tokens[:n_evaluated])
            if piece:
                self.repeat(piece)
            last = llama_cpp.llama_memory_seq_pos_max(self.memory, 0)
            assert last == depth - 1, f"the context ends at position {last}, want {depth - 1}"
        # Tells how many cells there are.
        self.state_bytes = llama_cpp.llama_state_seq_get_size(self.context, 0)
        self.evaluate(self.prompt)

    def tokenize(self, text):
        data = text.encode()
        vocabulary = self.api.llama_model_get_vocab(self.model)
        ids = (self.api.llama_token * (len(data) + 8))()
        n = self.api.llama_tokenize(vocabulary, data, len(data), ids, len(ids), True, False)
        return list(ids[:n])

    def evaluate(self, ids):
        for i in range(0, len(ids), self.n_batch):
            part = ids[i:i + self.n_batch]
            array = (self.api.llama_token * len(part))(*part)
            if self.api.llama_decode(self.context, self.api.llama_batch_get_one(array, len(part))):
                sys.exit("llama_decode failed")

    def repeat(self, piece):
        """Copies of the first `piece` cells until there are `depth`; a copy is loaded as sequence 1,
        moved to its positions and made part of sequence 0."""
        api, context, memory = self.api, self.context, self.memory
        size = api.llama_state_seq_get_size(context, 0)
        state = (ctypes.c_uint8 * size)()
        assert api.llama_state_seq_get_data(context, state, size, 0) == size
        for start in range(piece, self.depth, piece):
            if api.llama_state_seq_set_data(context, state, size, 1) != size:
                sys.exit(f"llama_state_seq_set_data failed at position {start}")
            api.llama_memory_seq_add(memory, 1, 0, -1, start)
            api.llama_memory_seq_cp(memory, 1, 0, -1, -1)
            api.llama_memory_seq_rm(memory, 1, -1, -1)
        api.llama_memory_seq_rm(memory, 0, self.depth, -1)

    def rate(self):
        """Tokens/s of a greedy continuation of the prompt; the first token, which the prompt's last
        one gives, is not timed."""
        api, one = self.api, (self.api.llama_token * 1)()

        def step(token):
            one[0] = token
            if api.llama_decode(self.context, api.llama_batch_get_one(one, 1)):
                sys.exit("llama_decode failed")
            return api.llama_sampler_sample(self.greedy, self.context, -1)

        # The rest of the prompt stays from run to run.
        api.llama_memory_seq_rm(self.memory, 0, self.depth + len(self.prompt) - 1, -1)
        token = step(self.prompt[-1])
        start = time.perf_counter()
        for _ in range(self.n_tokens - 1):
            token = step(token)
        return (self.n_tokens - 1) / (time.perf_counter() - start)


def serve(settings):
    context = Context(**settings)
    print(context.state_bytes, flush=True)
    for _ in sys.stdin:
        print(context.rate(), flush=True)


# --- what the benches use ---
class Llama:
    """A context in a process of its own; settings are the arguments of Context."""

    def __init__(self, python, **settings):
        self.process = subprocess.Popen([python, __file__, "serve", json.dumps(settings)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.state_bytes = int(self.read())

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("llama_decode.py ended; the reason stands above")
        return line

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return float(self.read())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def model_files(python, source, folder):
    """The file as it is and llama.cpp's requantisations of it, made once: name -> path."""
    files = {"as it is": source}
    for ftype in FTYPES:
        files[ftype] = os.path.join(folder, f"decode-{ftype}.gguf")
        if not os.path.exists(files[ftype]):
            subprocess.run([python, __file__, "requantise", source, files[ftype], ftype], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return files


if __name__ == "__main__":
    if sys.argv[1] == "requantise":
        requantise(*sys.argv[2:])
    elif sys.argv[1] == "probe":
        probe(sys.argv[2])
    elif sys.argv[1] == "http":
        http_server(sys.argv[2], sys.argv[3:])
    else:
        serve(json.loads(sys.argv[2]))
