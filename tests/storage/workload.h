// A fixed sequence of changes to a store, and what the store must hold after each: for tests that
// end it anywhere and look at what is left.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/storage/store_test_util.h"

namespace fovea::storage {

// Small enough that most commits begin a table file and a blob file.
constexpr size_t kWorkloadWriteBufferBytes = 64 << 10;

struct WorkloadStep {
  std::string name;
  // Empty for steps that change no record.
  std::function<void(Mutation*)> fill;
  bool compacts = false;
  bool reopens = false;
  // Numbers of the documents that are in the store after it.
  std::vector<DocumentNumber> documents;
};

// Large enough to go to table files at once, and with fewer windows small enough for the log.
inline TestDocument WorkloadDocument(DocumentNumber number, uint64_t n_windows = 3) {
  constexpr uint32_t kTokens = 60;  // blocks above the smallest blob
  constexpr uint64_t kMostWindows = 3;
  return MakeDocument(number, (number - 1) * kMostWindows * kTokens, n_windows, kTokens);
}
constexpr DocumentNumber kWorkloadDocuments = 9;

// Of the workload's steps: both kinds.
inline TestDocument StepDocument(DocumentNumber number) {
  return WorkloadDocument(number, number % 2 == 1 ? 3 : 1);
}

inline std::vector<WorkloadStep> Workload() {
  std::vector<WorkloadStep> steps;
  std::vector<DocumentNumber> documents;
  const auto commit = [&](std::string name, std::function<void(Mutation*)> fill) {
    steps.push_back({.name = std::move(name), .fill = std::move(fill), .documents = documents});
  };
  const auto put = [&](DocumentNumber number) {
    documents.push_back(number);
    commit(StrCat("put ", number),
           [number](Mutation* mutation) { PutDocument(StepDocument(number), mutation); });
  };
  commit("settings", [](Mutation* mutation) { mutation->PutSettings(TestSettings()); });
  for (const DocumentNumber number : {1, 2, 3, 4}) put(number);
  std::erase(documents, 2);
  commit("delete 2", [](Mutation* mutation) { DeleteDocument(StepDocument(2), mutation); });
  put(5);
  steps.push_back({.name = "reopen", .fill = {}, .reopens = true, .documents = documents});
  std::erase(documents, 1);
  documents.push_back(6);
  commit("replace 1 by 6", [](Mutation* mutation) {
    DeleteDocument(StepDocument(1), mutation);
    PutDocument(StepDocument(6), mutation);
  });
  steps.push_back({.name = "compact", .fill = {}, .compacts = true, .documents = documents});
  put(7);
  put(8);
  steps.push_back({.name = "reopen", .fill = {}, .reopens = true, .documents = documents});
  put(9);
  return steps;
}

// A new store with the workload's write buffer and the tests' settings.
inline absl::StatusOr<std::unique_ptr<DocumentStore>> MakeWorkloadStore(
    const std::filesystem::path& folder, std::shared_ptr<rocksdb::FileSystem> file_system) {
  ASSIGN_OR_RETURN(auto store,
                   DocumentStore::Open(folder, {.mode = OpenMode::kCreate,
                                                .write_buffer_bytes = kWorkloadWriteBufferBytes,
                                                .file_system = std::move(file_system)}));
  Mutation settings;
  settings.PutSettings(TestSettings());
  RETURN_IF_ERROR(store->Commit(std::move(settings)));
  return store;
}

// Runs the workload; calls `done(i)` after step i succeeded. Returns the first error.
inline absl::Status RunWorkload(const std::filesystem::path& folder, StoreOptions options,
                                const std::function<void(size_t)>& done) {
  options.write_buffer_bytes = kWorkloadWriteBufferBytes;
  options.mode = OpenMode::kCreate;
  ASSIGN_OR_RETURN(auto store, DocumentStore::Open(folder, options));
  const std::vector<WorkloadStep> steps = Workload();
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].reopens) {
      store.reset();
      options.mode = OpenMode::kWrite;
      ASSIGN_OR_RETURN(store, DocumentStore::Open(folder, options));
    } else if (steps[i].compacts) {
      RETURN_IF_ERROR(store->Compact());
    } else {
      Mutation mutation;
      steps[i].fill(&mutation);
      RETURN_IF_ERROR(store->Commit(std::move(mutation)));
    }
    done(i);
  }
  return absl::OkStatus();
}

// What is wrong with the store if it should be in the state after `n_steps` steps; empty: nothing.
inline std::string CheckState(const DocumentStore& store, size_t n_steps) {
  const auto settings = store.Settings();
  if (!settings.ok()) return settings.status().ToString();
  if (settings->has_value() != (n_steps > 0)) return "settings";
  const std::vector<DocumentNumber> documents =
      n_steps == 0 ? std::vector<DocumentNumber>() : Workload()[n_steps - 1].documents;
  for (DocumentNumber number = 1; number <= kWorkloadDocuments; ++number) {
    const bool is_there = std::find(documents.begin(), documents.end(), number) != documents.end();
    const std::string fault = is_there ? CheckDocument(store, StepDocument(number))
                                       : CheckAbsent(store, StepDocument(number));
    if (!fault.empty()) return StrCat("document ", number, ": ", fault);
  }
  return "";
}

// The same where the step after `n_done` ones may or may not have happened.
inline std::string CheckStateAfterEnd(const DocumentStore& store, size_t n_done) {
  const std::string before = CheckState(store, n_done);
  if (before.empty() || n_done == Workload().size()) return before;
  const std::string after = CheckState(store, n_done + 1);
  if (after.empty()) return "";
  return StrCat("after ", n_done, " steps: neither the state before the next one (", before,
                ") nor after it (", after, ")");
}

}  // namespace fovea::storage
