// What is evaluated: a model on a device, the memories that it makes for that, and its answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "answer/answerer.h"
#include "base/progress.h"
#include "base/status.h"
#include "compute/device.h"
#include "memory/memory.h"
#include "model/transformer.h"

namespace fovea::eval {

struct Subject {
  compute::Device* device = nullptr;
  model::Transformer* model = nullptr;
  std::string model_name;  // what memories remember of it
  std::string adapter_name;
  std::filesystem::path folder;  // that memories are made in
  // Of the memories; unset (0, ""): as `fovea ingest` does.
  int window = 0;
  int overlap = -1;
  std::string index_spec = {};
  Progress progress = {};
  // Who answers from a memory; null: answer::Answerer::Create.
  std::function<absl::StatusOr<std::unique_ptr<answer::Answerer>>(
      compute::Device* device, model::Transformer* model, memory::Memory* memory)>
      create_answerer = nullptr;
};

struct Document {
  std::string source;  // its name, another one for each
  std::string text;
  std::string collection = "default";
};

// A memory of the subject's, filled by the same ingest and asked by the same answerer as any other.
// Not thread-safe.
class TestMemory {
 public:
  // Opens subject.folder / `name`, or makes it. `subject` outlives it. FailedPrecondition when
  // another model's memory is there.
  static absl::StatusOr<std::unique_ptr<TestMemory>> Open(const Subject* subject,
                                                          const std::string& name);

  // Afterwards the memory holds exactly these documents. What it held before is not encoded again.
  // InvalidArgument names a document that could not be stored.
  absl::Status Fill(std::span<const Document> documents);

  absl::StatusOr<answer::Answer> Ask(const answer::Request& request) const;

  const memory::Memory& memory() const { return *memory_; }
  uint64_t n_tokens() const { return memory_->Current()->n_tokens; }
  // Of a document that Fill stored.
  const std::string& IdOf(const std::string& source) const { return ids_.at(source); }
  // SHA-256 of the ids of all documents, in the order of their sources: what the memory holds.
  std::string TextHash() const;

 private:
  explicit TestMemory(const Subject* subject) : subject_(*subject) {}

  const Subject& subject_;
  std::unique_ptr<memory::Memory> memory_;
  std::unique_ptr<answer::Answerer> answerer_;
  std::map<std::string, std::string> ids_;  // by source
};

}  // namespace fovea::eval
