#include "python/memory.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "answer/check_memory.h"
#include "base/processors.h"
#include "memory/statistics.h"
#include "memory/stored_entries.h"
#include "memory/upkeep/delete_documents.h"
#include "memory/upkeep/rebuild.h"
#include "memory/upkeep/verify.h"
#include "model_home/model_home.h"
#include "model_home/model_pull.h"
#include "python/await.h"
#include "python/errors.h"
#include "python/opened_memory.h"
#include "python/task.h"

namespace fovea::python {

namespace nb = nanobind;
using namespace nb::literals;  // NOLINT(google-build-using-namespace): argument names

namespace {

using std::filesystem::path;
using storage::DocumentRecord;
using Strings = std::vector<std::string>;
using BlockPart = storage::DocumentStore::BlockPart;

// What a long call tells its caller: how far it is, and what became of a document.
using Update = std::variant<ProgressUpdate, memory::IngestedDocument>;
using OnProgress = std::optional<nb::typed<nb::callable, void(ProgressUpdate)>>;
using OnDocument = std::optional<nb::typed<nb::callable, void(memory::IngestedDocument)>>;

// Reports to the task's caller, and ends when the task is cancelled.
template <typename Result>
Progress ProgressOf(Task<Result, Update>& task) {
  return {[&task](const ProgressUpdate& update) { task.Post(update); }, task.cancelled()};
}

// Runs `work` on a thread of its own, with its updates going to `on_progress` and `on_document` on
// this one.
template <typename Result, typename Work>
Result RunLong(OpenedMemory* memory, const OnProgress& on_progress, const OnDocument& on_document,
               Work work) {
  const auto task = std::make_shared<Task<Result, Update>>(std::move(work));
  if (memory != nullptr) memory->Track(task);
  return Await(*task, [&](const Update& update) {
    if (const auto* progress = std::get_if<ProgressUpdate>(&update)) {
      if (on_progress.has_value()) (*on_progress)(*progress);
    } else if (on_document.has_value()) {
      (*on_document)(std::get<memory::IngestedDocument>(update));
    }
  });
}

// A question that is being answered, on a thread of its own.
class AnswerStream {
 public:
  using AskTask = Task<answer::Answer, std::string>;

  explicit AnswerStream(std::shared_ptr<AskTask> task) : task_(std::move(task)) {}
  AnswerStream(AnswerStream&&) = default;
  AnswerStream& operator=(AnswerStream&&) = default;
  ~AnswerStream() {
    const nb::gil_scoped_release release;
    task_.reset();
  }

  // The next piece; StopIteration at the end.
  std::string Next() {
    if (at_ == pieces_.size()) {
      pieces_ = TakeMessages(*task_);
      at_ = 0;
    }
    if (at_ == pieces_.size()) {
      ThrowIfError(task_->result().status());
      throw nb::stop_iteration();
    }
    return std::move(pieces_[at_++]);
  }
  answer::Answer Whole() {
    pieces_.clear();
    at_ = 0;
    return Await(*task_, [](const std::string&) {});
  }
  void Cancel() { task_->Cancel(); }

 private:
  std::shared_ptr<AskTask> task_;
  Strings pieces_;
  size_t at_ = 0;
};

// What the options of a question are in Python.
struct AskArguments {
  Strings collections;
  Strings documents;
  std::optional<std::string> mode;
  int top_k = 0;
  bool use_memory = true;
  std::optional<int> reread;
  std::optional<std::string> reread_by;
  std::optional<bool> reread_memory;
  int max_tokens = 256;
  float temperature = 0.0F;
  float top_p = 1.0F;
  uint64_t seed = 0;
  Strings stop;
  int sources = 3;
  bool marks = false;
  bool raw = false;
  bool audit = false;
};

class Memory {
 public:
  static Memory Open(path folder, const std::optional<std::string>& model,
                     const std::optional<std::string>& adapter, bool read_only,
                     const std::string& device, std::optional<uint64_t> gpu_memory, int threads,
                     const std::string& precision) {
    answer::FoveaOptions options;
    options.memory = std::move(folder);
    options.model = model.value_or("");
    options.adapter = adapter.value_or("");
    options.read_only = read_only;
    options.device = device;
    options.gpu_memory_bytes = gpu_memory;
    options.n_threads = std::min(threads, NumProcessors());
    options.precision = precision;
    absl::StatusOr<std::unique_ptr<OpenedMemory>> opened = absl::UnknownError("not opened");
    {
      const nb::gil_scoped_release release;
      opened = OpenedMemory::Open(options);
    }
    return Memory(ValueOrThrow(std::move(opened)));
  }
  Memory(Memory&&) = default;
  Memory& operator=(Memory&&) = default;
  ~Memory() {
    const nb::gil_scoped_release release;
    opened_.reset();
  }

  void Close() {
    const nb::gil_scoped_release release;
    opened_->Close();
  }
  bool is_closed() const { return opened_->is_closed(); }
  const path& folder() const { return opened_->options().memory; }
  bool is_read_only() const { return opened_->options().read_only; }

  answer::IngestSummary Ingest(const std::variant<path, std::vector<path>>& paths,
                               const std::vector<std::pair<std::string, std::string>>& texts,
                               const std::string& collection, int window, int overlap,
                               const std::string& encoding, const std::string& index,
                               const OnProgress& on_progress, const OnDocument& on_document) {
    answer::IngestRequest request;
    request.paths = std::holds_alternative<path>(paths) ? std::vector<path>{std::get<path>(paths)}
                                                        : std::get<std::vector<path>>(paths);
    for (const auto& [name, text] : texts) request.texts.push_back({name, text});
    request.collection = collection;
    request.options.window = window;
    request.options.overlap = overlap;
    request.options.encoding = encoding;
    request.options.index_spec = index;
    request.options.one_text_per_source = true;
    return RunLong<answer::IngestSummary>(
        opened_.get(), on_progress, on_document,
        [engine = engine(), request](auto& task) -> absl::StatusOr<answer::IngestSummary> {
          const std::lock_guard lock(engine->changing);
          answer::IngestRequest mine = request;
          ASSIGN_OR_RETURN(mine.options.device, engine->DeviceForChanges());
          mine.options.progress = ProgressOf(task);
          mine.options.on_document = [&task](const memory::IngestedDocument& document) {
            task.Post(document);
          };
          absl::StatusOr<answer::IngestSummary> summary = engine->fovea->Ingest(mine);
          if (!absl::IsCancelled(summary.status())) return summary;
          // What is stored so far is to be found.
          memory::Memory& memory = engine->fovea->memory();
          RETURN_IF_ERROR(memory.UpdateTextIndex(fovea::Progress()));
          RETURN_IF_ERROR(memory.Publish());
          return summary;
        });
  }

  AnswerStream Ask(const std::string& question, const std::optional<std::string>& system,
                   const std::vector<std::pair<std::string, std::string>>& history,
                   const AskArguments& arguments) {
    answer::Request request;
    using Role = model::ChatMessage::Role;
    if (system.has_value()) request.messages.push_back({Role::kSystem, *system});
    for (const auto& [asked, answered] : history) {
      request.messages.push_back({Role::kUser, asked});
      request.messages.push_back({Role::kAssistant, answered});
    }
    request.messages.push_back({Role::kUser, question});
    answer::AskOptions& options = request.options;
    options.scope = {.collections = arguments.collections, .documents = arguments.documents};
    if (arguments.mode.has_value()) {
      options.mode = ValueOrThrow(memory::ParseSearchMode(*arguments.mode));
    }
    options.top_k = arguments.top_k;
    options.use_memory = arguments.use_memory;
    options.reread = arguments.reread;
    if (arguments.reread_by.has_value()) {
      options.reread_by = ValueOrThrow(answer::ParseRereadBy(*arguments.reread_by));
    }
    options.reread_memory = arguments.reread_memory;
    options.max_tokens = arguments.max_tokens;
    options.temperature = arguments.temperature;
    options.top_p = arguments.top_p;
    options.seed = arguments.seed;
    options.stop = arguments.stop;
    options.n_sources = arguments.sources;
    options.marks = arguments.marks;
    options.raw = arguments.raw;
    options.audit = arguments.audit;
    const auto task = std::make_shared<AnswerStream::AskTask>(
        [engine = engine(),
         request](AnswerStream::AskTask& task) -> absl::StatusOr<answer::Answer> {
          answer::Request mine = request;
          mine.progress = fovea::Progress(nullptr, task.cancelled());
          mine.stream = [&task](std::string_view piece) {
            task.Post(std::string(piece));
            return true;
          };
          absl::StatusOr<answer::Answer> answer = engine->fovea->Run(mine);
          // Nobody who reads it has asked for an end: a part must not pass for the whole.
          if (answer.ok() && answer->finish_reason == "cancelled" && task.is_closed()) {
            return ClosedWhileRunning();
          }
          return answer;
        });
    opened_->Track(task);
    return AnswerStream(task);
  }

  std::vector<memory::Passage> Search(const std::string& query, const std::string& by, int limit,
                                      const Strings& collections, const Strings& documents) {
    answer::SearchRequest search;
    search.query = query;
    search.by = ValueOrThrow(answer::ParseRereadBy(by));
    search.n_passages = limit;
    search.scope = {.collections = collections, .documents = documents};
    return RunLong<std::vector<memory::Passage>>(
        opened_.get(), {}, {}, [engine = engine(), search](auto& task) {
          answer::SearchRequest mine = search;
          mine.progress = fovea::Progress(nullptr, task.cancelled());
          return engine->fovea->answerer().Search(mine);
        });
  }

  std::vector<DocumentRecord> Documents(const std::optional<std::string>& collection) {
    const auto generation = View();
    if (!collection.has_value()) return generation->documents;
    ThrowIfError(memory::CheckCollections(*generation, {*collection}));
    std::vector<DocumentRecord> documents = generation->documents;
    std::erase_if(documents, [&](const auto& document) { return !document.IsIn(*collection); });
    return documents;
  }
  DocumentRecord Document(const std::string& id) { return *Find(*View(), id); }

  std::string ReadText(const std::string& id, int64_t start, const std::optional<int64_t>& end) {
    if (start < 0 || end.value_or(0) < 0) {
      ThrowStatus(absl::InvalidArgumentError(
          StrCat("bytes ", start, " to ", end.value_or(0), ": want numbers from 0")));
    }
    const auto generation = View();
    const DocumentRecord document = *Find(*generation, id);
    absl::StatusOr<memory::TextRange> range;
    {
      const nb::gil_scoped_release release;
      range = memory::ReadTextRange(*generation, document, static_cast<uint64_t>(start), end);
    }
    return ValueOrThrow(std::move(range)).text;
  }

  std::vector<DocumentRecord> Delete(const Strings& ids, const Strings& collections) {
    if (ids.empty() && collections.empty()) {
      ThrowStatus(absl::InvalidArgumentError("delete: give ids or collections"));
    }
    return RunLong<std::vector<DocumentRecord>>(
        opened_.get(), {}, {},
        [engine = engine(), ids,
         collections](auto& task) -> absl::StatusOr<std::vector<DocumentRecord>> {
          const std::lock_guard lock(engine->changing);
          RETURN_IF_ERROR(engine->DeviceForChanges().status());
          memory::Memory::Removed removed =
              memory::DeleteDocuments(&engine->fovea->memory(), ids, collections,
                                      fovea::Progress(nullptr, task.cancelled()));
          RETURN_IF_ERROR(removed.status);
          return std::move(removed.gone);
        });
  }

  memory::RebuildResult Rebuild(const std::string& index, const OnProgress& on_progress) {
    return RunLong<memory::RebuildResult>(
        opened_.get(), on_progress, {},
        [engine = engine(), index](auto& task) -> absl::StatusOr<memory::RebuildResult> {
          const std::lock_guard lock(engine->changing);
          ASSIGN_OR_RETURN(compute::Device * device, engine->DeviceForChanges());
          return memory::Rebuild(*device, &engine->fovea->memory(), index, ProgressOf(task));
        });
  }

  memory::VerifyReport Verify(const OnProgress& on_progress) {
    return RunLong<memory::VerifyReport>(
        opened_.get(), on_progress, {},
        [engine = engine()](auto& task) -> absl::StatusOr<memory::VerifyReport> {
          const std::lock_guard lock(engine->changing);
          compute::Device* const asking = engine->fovea->model().device();
          ASSIGN_OR_RETURN(const auto device, asking->CreateAnother(asking->threads().n_threads()));
          memory::VerifyOptions options;
          options.progress = ProgressOf(task);
          return memory::Verify(*device, &engine->fovea->memory(), options);
        });
  }

  memory::Stats Stats() {
    return RunLong<memory::Stats>(opened_.get(), {}, {},
                                  [engine = engine()](auto&) -> absl::StatusOr<memory::Stats> {
                                    const std::lock_guard lock(engine->changing);
                                    RETURN_IF_ERROR(engine->View().status());
                                    return memory::ComputeStats(engine->fovea->memory());
                                  });
  }

  // The model's layers that have a memory, from 0.
  std::vector<int> MemoryLayers() { return engine()->fovea->model().memory_config().mem_layers; }
  Strings Warnings() { return engine()->fovea->warnings(); }
  std::string ModelName() { return engine()->fovea->ingest_options().model_name; }
  std::string AdapterName() { return engine()->fovea->ingest_options().adapter_name; }

  std::vector<storage::WindowLink> Windows(const std::string& id) {
    const auto generation = View();
    return ValueOrThrow(memory::WindowsOf(*generation, *Find(*generation, id)));
  }

  nb::list Entries(const std::string& id, int layer, BlockPart part) {
    const auto opened = engine();
    const std::vector<int>& layers = opened->fovea->model().memory_config().mem_layers;
    const auto found = std::find(layers.begin(), layers.end(), layer);
    if (found == layers.end()) {
      std::string known;
      for (const int one : layers) known += StrCat(known.empty() ? "" : ", ", one);
      ThrowStatus(absl::InvalidArgumentError(
          StrCat("layer ", layer, ": want a memory layer of the model: ", known)));
    }
    const int memory_layer = static_cast<int>(found - layers.begin());
    const auto generation = View();
    const DocumentRecord document = *Find(*generation, id);
    absl::StatusOr<std::vector<memory::StoredEntries>> windows;
    {
      const nb::gil_scoped_release release;
      windows = ReadWindows(*generation, document, memory_layer, part);
    }
    nb::list arrays;
    for (memory::StoredEntries& one : ValueOrThrow(std::move(windows))) {
      arrays.append(ToArray(std::move(one)));
    }
    return arrays;
  }

 private:
  explicit Memory(std::unique_ptr<OpenedMemory> opened) : opened_(std::move(opened)) {}

  std::shared_ptr<Engine> engine() const { return ValueOrThrow(opened_->engine()); }
  std::shared_ptr<const memory::Generation> View() const {
    const auto opened = engine();
    const nb::gil_scoped_release release;
    auto view = opened->View();
    const nb::gil_scoped_acquire acquire;
    return ValueOrThrow(std::move(view));
  }
  static const DocumentRecord* Find(const memory::Generation& generation, const std::string& id) {
    return ValueOrThrow(memory::FindDocument(generation, id));
  }
  static absl::StatusOr<std::vector<memory::StoredEntries>> ReadWindows(
      const memory::Generation& generation, const DocumentRecord& document, int memory_layer,
      BlockPart part) {
    ASSIGN_OR_RETURN(const auto windows, memory::WindowsOf(generation, document));
    std::vector<memory::StoredEntries> entries;
    for (const storage::WindowLink& window : windows) {
      ASSIGN_OR_RETURN(entries.emplace_back(),
                       memory::ReadEntries(generation, window.slot_begin, memory_layer, part));
    }
    return entries;
  }
  static nb::object ToArray(memory::StoredEntries entries) {
    const size_t shape[] = {static_cast<size_t>(entries.n_kv_heads),
                            static_cast<size_t>(entries.n_tokens),
                            static_cast<size_t>(entries.head_dim)};
    const EntryPointer data = entries.block.data();
    const nb::capsule owner(
        new memory::HalfBlock(std::move(entries.block)),
        [](void* held) noexcept { delete static_cast<memory::HalfBlock*>(held); });
    if (data.type() == EntryType::kFloat32) {
      return nb::cast(nb::ndarray<nb::numpy, const float, nb::ndim<3>>(
          static_cast<const float*>(data.address()), 3, shape, owner));
    }
    return nb::cast(nb::ndarray<nb::numpy, const uint16_t, nb::ndim<3>>(
        static_cast<const uint16_t*>(data.address()), 3, shape, owner));
  }

  std::unique_ptr<OpenedMemory> opened_;
};

// Of a memory that nobody has open.
memory::VerifyReport VerifyFolder(const path& folder, bool repair,
                                  const std::optional<std::string>& model,
                                  const std::optional<std::string>& adapter,
                                  const std::string& device, int threads,
                                  const OnProgress& on_progress) {
  return RunLong<memory::VerifyReport>(
      nullptr, on_progress, {},
      [folder, repair, model, adapter, device,
       threads](auto& task) -> absl::StatusOr<memory::VerifyReport> {
        ASSIGN_OR_RETURN(const auto made,
                         compute::Device::Create(device, std::min(threads, NumProcessors())));
        return answer::CheckMemory(*made, {.memory = folder,
                                           .repair = repair,
                                           .model = model,
                                           .adapter = adapter,
                                           .progress = ProgressOf(task)});
      });
}

path PullModel(const std::string& name, const OnProgress& on_progress) {
  return RunLong<path>(nullptr, on_progress, {}, [name](auto& task) {
    return model_home::PullModel(name, model_home::ModelHome::FromEnvironment().folder,
                                 ProgressOf(task));
  });
}

void AddAnswerStream(nb::module_& module) {
  nb::class_<AnswerStream>(module, "AnswerStream",
                           "A question that is being answered: an iterator of pieces of the text, "
                           "each of whole characters, then the answer with its sources.")
      .def(
          "__iter__", [](nb::handle self) { return nb::borrow(self); },
          nb::sig("def __iter__(self) -> AnswerStream"))
      .def("__next__", &AnswerStream::Next)
      .def_prop_ro("answer", &AnswerStream::Whole,
                   "The whole answer. Waits for its end; pieces that were not taken are gone then.")
      .def_prop_ro(
          "text", [](AnswerStream& self) { return self.Whole().text; }, "The answer's text.")
      .def_prop_ro(
          "sources", [](AnswerStream& self) { return self.Whole().sources; },
          "What the answer was read from. Waits for its end.")
      .def("cancel", &AnswerStream::Cancel,
           "Ends the answer at its next token; its finish_reason is \"cancelled\" then.");
}

constexpr char kOpenDoc[] = R"(Opens the memory in a folder; makes one where there is none.

model: a GGUF file, a folder with safetensors, or a name. A memory remembers its model: later it
    is needed only where the model has moved. Default: FOVEA_MODEL where it is set, else "smollm2"
    (fovea.pull_model() gets it).
adapter: a folder or name, "none", or "layers:9,15,21" for memory layers without one. Default: the
    one that was made for the model, where it is installed.
read_only: for questions beside a process that writes. Else this process is the memory's one writer:
    fovea.Unavailable where another one is.
device: "cpu", "cuda" or "cuda:N"; gpu_memory: bytes that the memory may take there.
threads: 0: all processors. precision: of products with weights: "auto", "float32", "int8" (cpu),
    "bfloat16" (cuda).)";

constexpr char kIngestDoc[] = R"(Stores documents; what is stored already is not encoded again.

paths: a file or folder (with all that is in it), or several. texts: pairs (name, text); another
    text of the same name takes the place of the first.
window, overlap, encoding, index: of the memory's first ingest, as `fovea ingest` has them.
progress: called with a Progress as it goes on; on_document with each document when it is durable,
    or has failed. Both on this thread; what they raise ends the ingest, as Ctrl-C does. What was
    stored by then stays, and the same call goes on from there.

Documents that cannot be read are in the summary (failed), and the others are stored. A path where
nothing is raises fovea.NotFound before anything is stored.)";

constexpr char kAskDoc[] = R"(Answers a question, with sources; begins at once and does not wait.

    for piece in memory.ask("Who left the key in the attic?"): ...
    answer = memory.ask("Who left the key in the attic?").answer

system: a system message in the place of the model's own; "": none. history: earlier turns, pairs
    (question, answer). collections, documents (ids): what the question may see; empty: all.
mode: "approximate" (default), "exact" or "dense". top_k: keys kept for each query head; 0: the
    model's. use_memory: False: the model alone.
reread: passages whose text joins the prompt; 0: none; None: what measured best for the model.
    reread_by: "attention", "bm25" or "both". reread_memory: the memory while they are read.
marks: "[1]" behind a sentence of the text, and of the pieces, names its source; Answer.marks has
    where.
max_tokens, temperature (0: always the likeliest token), top_p, seed, stop, sources (their number),
    raw (continue the text, without the chat template), audit: as `fovea ask` has them.)";

constexpr char kEntriesDoc[] =
    R"( of a document at one memory layer: one array for each of its windows.

Arrays are read-only, [n_kv_heads, n_tokens, head_dim], of type uint16 where the memory keeps
bfloat16 (its bits; fovea.to_float32 makes float32 of them, exactly), or float32. They are views of
the memory's files, without a copy, at any address (flags.aligned may be False), and stay valid when
the memory is closed or the document deleted; of what is not in files that can be mapped yet (just
ingested), of which they are copies. np.concatenate(arrays, axis=1) is a copy of the whole document.

document: its id, or a unique beginning of it. layer: one of memory_layers.)";

void AddMemoryClass(nb::module_& module) {
  static const std::string keys_doc =
      StrCat("Keys (before RoPE, times the layer's gain)", kEntriesDoc);
  static const std::string values_doc = StrCat("Values", kEntriesDoc);
  nb::class_<Memory>(module, "Memory",
                     "A memory: a folder with documents, and the keys and values that a model has "
                     "made of them. Memory.open opens one. Thread-safe: questions are answered "
                     "beside one another and beside an ingest; changes wait for one another.")
      .def_static("open", &Memory::Open, "path"_a, nb::kw_only(), "model"_a = nb::none(),
                  "adapter"_a = nb::none(), "read_only"_a = false, "device"_a = "cpu",
                  "gpu_memory"_a = nb::none(), "threads"_a = 0, "precision"_a = "auto", kOpenDoc)
      .def("close", &Memory::Close,
           "Ends what runs, and lets other processes have the memory. What was reported as stored "
           "is durable without it.")
      .def(
          "__enter__", [](nb::handle self) { return nb::borrow(self); },
          nb::sig("def __enter__(self) -> Memory"))
      .def(
          "__exit__", [](Memory& self, const nb::args&) { self.Close(); },
          nb::sig("def __exit__(self, *args: object) -> None"))
      .def("__repr__",
           [](const Memory& self) {
             return StrCat("<fovea.Memory ", self.folder().native(),
                           self.is_closed() ? " (closed)>" : ">");
           })
      .def_prop_ro("path", &Memory::folder)
      .def_prop_ro("closed", &Memory::is_closed)
      .def_prop_ro("read_only", &Memory::is_read_only)
      .def_prop_ro("model", &Memory::ModelName, "A name, or an absolute path.")
      .def_prop_ro("adapter", &Memory::AdapterName, "A name, a path, \"none\" or \"layers:...\".")
      .def_prop_ro("warnings", &Memory::Warnings,
                   "What should be known of the model and its adapter.")
      .def_prop_ro("memory_layers", &Memory::MemoryLayers,
                   "The model's layers that look up keys, counted from 0.")
      .def("ingest", &Memory::Ingest, "paths"_a = std::vector<path>(), nb::kw_only(),
           "texts"_a = std::vector<std::pair<std::string, std::string>>(),
           "collection"_a = "default", "window"_a = 0, "overlap"_a = -1, "encoding"_a = "",
           "index"_a = "", "progress"_a = nb::none(), "on_document"_a = nb::none(), kIngestDoc)
      .def(
          "ask",
          [](Memory& self, const std::string& question, const std::optional<std::string>& system,
             const std::vector<std::pair<std::string, std::string>>& history, Strings collections,
             Strings documents, std::optional<std::string> mode, int top_k, bool use_memory,
             std::optional<int> reread, std::optional<std::string> reread_by,
             std::optional<bool> reread_memory, int max_tokens, float temperature, float top_p,
             uint64_t seed, Strings stop, int sources, bool marks, bool raw, bool audit) {
            return self.Ask(question, system, history,
                            {.collections = std::move(collections),
                             .documents = std::move(documents),
                             .mode = std::move(mode),
                             .top_k = top_k,
                             .use_memory = use_memory,
                             .reread = reread,
                             .reread_by = std::move(reread_by),
                             .reread_memory = reread_memory,
                             .max_tokens = max_tokens,
                             .temperature = temperature,
                             .top_p = top_p,
                             .seed = seed,
                             .stop = std::move(stop),
                             .sources = sources,
                             .marks = marks,
                             .raw = raw,
                             .audit = audit});
          },
          "question"_a, nb::kw_only(), "system"_a = nb::none(),
          "history"_a = std::vector<std::pair<std::string, std::string>>(),
          "collections"_a = Strings(), "documents"_a = Strings(), "mode"_a = nb::none(),
          "top_k"_a = 0, "use_memory"_a = true, "reread"_a = nb::none(), "reread_by"_a = nb::none(),
          "reread_memory"_a = nb::none(), "max_tokens"_a = 256, "temperature"_a = 0.0F,
          "top_p"_a = 1.0F, "seed"_a = 0, "stop"_a = Strings(), "sources"_a = 3, "marks"_a = false,
          "raw"_a = false, "audit"_a = false, kAskDoc)
      .def("search", &Memory::Search, "query"_a, nb::kw_only(), "by"_a = "bm25", "limit"_a = 10,
           "collections"_a = Strings(), "documents"_a = Strings(),
           "Passages for a text, best first: by \"bm25\" (words), \"attention\" or \"both\".")
      .def("documents", &Memory::Documents, "collection"_a = nb::none(),
           "All documents, or those of a collection.")
      .def("document", &Memory::Document, "document"_a, "By its id, or a unique beginning of it.")
      .def(
          "text", &Memory::ReadText, "document"_a, "start"_a = 0, "end"_a = nb::none(),
          "The text of a document, exactly as it was ingested, or bytes [start, end) of it (UTF-8; "
          "a character that the range cuts is left out).")
      .def(
          "delete",
          [](Memory& self, const nb::args& documents, const Strings& collections) {
            Strings ids;
            for (const nb::handle id : documents) {
              if (!nb::isinstance<nb::str>(id)) {
                throw nb::type_error(
                    "delete: want ids as strings, one by one: memory.delete(*ids)");
              }
              ids.push_back(nb::cast<std::string>(id));
            }
            return self.Delete(ids, collections);
          },
          "documents"_a, nb::kw_only(), "collections"_a = Strings(),
          nb::sig("def delete(self, *documents: str, collections: Sequence[str] = []) -> "
                  "list[Document]"),
          "Deletes documents by id, or whole collections, out of the files, too; returns them. A "
          "document that is in other collections stays in those.")
      .def("rebuild", &Memory::Rebuild, "index"_a = "", nb::kw_only(), "progress"_a = nb::none(),
           "Builds new indexes while the old ones answer. index: \"auto\", \"exact\", \"Scan2\", "
           "\"Scan4\", \"Scan8\" or a FAISS specification; \"\": the memory's.")
      .def("verify", &Memory::Verify, nb::kw_only(), "progress"_a = nb::none(),
           "Checks every record and file. fovea.verify(path, repair=True) repairs a memory that is "
           "not open.")
      .def("stats", &Memory::Stats)
      .def("windows", &Memory::Windows, "document"_a, "In the order of the document's text.")
      .def(
          "keys",
          [](Memory& self, const std::string& document, int layer) {
            return self.Entries(document, layer, BlockPart::kKeys);
          },
          "document"_a, "layer"_a,
          nb::sig("def keys(self, document: str, layer: int) -> "
                  "list[numpy.typing.NDArray[numpy.uint16 | numpy.float32]]"),
          keys_doc.c_str())
      .def(
          "values",
          [](Memory& self, const std::string& document, int layer) {
            return self.Entries(document, layer, BlockPart::kValues);
          },
          "document"_a, "layer"_a,
          nb::sig("def values(self, document: str, layer: int) -> "
                  "list[numpy.typing.NDArray[numpy.uint16 | numpy.float32]]"),
          values_doc.c_str());
}

}  // namespace

void AddMemory(nb::module_& module) {
  AddAnswerStream(module);
  AddMemoryClass(module);
  module.def(
      "verify", &VerifyFolder, "path"_a, nb::kw_only(), "repair"_a = false, "model"_a = nb::none(),
      "adapter"_a = nb::none(), "device"_a = "cpu", "threads"_a = 0, "progress"_a = nb::none(),
      "Checks every record and file of a memory; with repair, makes again what is damaged, as "
      "`fovea verify` does. A repair needs a memory that no process has open.");
  module.def("pull_model", &PullModel, "name"_a = std::string(model_home::kDefaultModel),
             nb::kw_only(), "progress"_a = nb::none(),
             "Gets a model that fovea knows by name, where it is not there; returns its path. (pip "
             "of the python3 in PATH downloads it.)");
  module.def(
      "close_all",
      [] {
        const nb::gil_scoped_release release;
        OpenedMemory::CloseAll();
      },
      "Closes all memories: for the end of the process.");
}

}  // namespace fovea::python
