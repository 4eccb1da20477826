// The whole of fovea behind one class, for programs: open a memory, ingest, ask.
//
//   auto fovea = fovea::answer::Fovea::Open({.memory = "notes.fovea", .model = "smollm2"});
//   (*fovea)->IngestFile("book.txt");
//   auto answer = (*fovea)->Ask("Who left the key in the attic?");
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "answer/answerer.h"
#include "answer/ingest_summary.h"
#include "memory/ingest/ingester.h"
#include "memory/memory.h"
#include "model/transformer.h"

namespace fovea::answer {

struct FoveaOptions {
  std::filesystem::path memory;
  // For the first ingest; later the memory remembers them. A path or a name; empty: FOVEA_MODEL,
  // where it is set, else "smollm2".
  std::filesystem::path model;
  // A folder, a name, or "none"; empty: the one that was made for the model, if it is installed.
  std::filesystem::path adapter;
  bool read_only = false;
  std::string device = "cpu";
  std::optional<uint64_t> gpu_memory_bytes = {};  // that the memory may take; unset: what is free
  int n_threads = 0;                              // 0: all processors
  // Of products with weights: "float32", "int8", or "auto": the faster one on this machine.
  std::string precision = "auto";
  // Looks at what was opened before a memory is made where there is none (null then); its error is
  // Open's. May be null.
  std::function<absl::Status(const memory::Memory* memory, const model::Transformer& model)> check =
      nullptr;
};

// What an ingest of files and texts is given.
struct IngestRequest {
  // Files, and folders with all that is in them.
  std::vector<std::filesystem::path> paths;
  struct Text {
    std::string name;  // the title and the source: another text of this name takes its place
    std::string text;
  };
  std::vector<Text> texts;
  std::string collection = "default";
  // The names of the model and the adapter are filled in.
  memory::IngestOptions options;
};

// Not thread-safe.
class Fovea {
 public:
  // Makes the memory where there is none, unless it is opened read-only or its model does not load.
  static absl::StatusOr<std::unique_ptr<Fovea>> Open(const FoveaOptions& options);
  ~Fovea();

  // What became of all documents, durable when this returns. A document that cannot be read is in
  // the summary, with an error, and the others go on; files of a folder that hold no text are
  // counted. NotFound, before anything is stored, for a path where nothing is. With a device of its
  // own (IngestOptions::device) it may run beside questions.
  absl::StatusOr<IngestSummary> Ingest(const IngestRequest& request);
  // The result of every document of the file, or of the folder and those in it, durable when this
  // returns. A document that cannot be read is a result with an error; the others go on. Files of a
  // folder that hold no text (images, archives, programs) are passed over.
  absl::StatusOr<std::vector<memory::IngestedDocument>> IngestFile(
      const std::filesystem::path& path, const std::string& collection = "default");
  // The same title with another text replaces the first one.
  absl::StatusOr<memory::IngestedDocument> IngestText(const std::string& title,
                                                      const std::string& text,
                                                      const std::string& collection = "default");
  absl::StatusOr<Answer> Ask(const std::string& question, const AskOptions& options = {},
                             const StreamCallback& stream = nullptr);
  // With a system message, earlier turns, stop strings, cancellation. Thread-safe, as Ask is, while
  // nothing is ingested.
  absl::StatusOr<Answer> Run(const Request& request) { return answerer_->Run(request); }

  memory::Memory& memory() { return *memory_; }
  model::Transformer& model() { return *model_; }
  // Thread-safe. Answers beside an ingest that has a device of its own.
  const Answerer& answerer() const { return *answerer_; }
  // For an Ingester: what the first ingest of the memory remembers.
  memory::IngestOptions ingest_options() const;
  // For people: what should be known of the model and its adapter; empty: nothing.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  Fovea() = default;
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<model::Transformer> model_;
  std::unique_ptr<memory::Memory> memory_;
  std::unique_ptr<Answerer> answerer_;
  std::string model_name_;  // to remember at the first ingest
  std::string adapter_name_;
  std::vector<std::string> warnings_;
};

}  // namespace fovea::answer
