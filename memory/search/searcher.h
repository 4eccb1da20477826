// Search in a memory on behalf of a model's memory layers: candidates of every segment, exact
// rescoring with stored keys, one softmax over the top k as a partial attention, and the mass that
// each stored token received (for naming sources). Focused Transformer, arXiv 2307.03170, section
// 3.1, with M_top the k nearest keys by inner product.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/progress.h"
#include "compute/device.h"
#include "memory/generation.h"
#include "model/memory_source.h"
#include "model/transformer.h"

namespace fovea::memory {

enum class SearchMode {
  kDense,        // every key: LongLLaMA's inference
  kExact,        // the top k by an exact scan
  kApproximate,  // the top k of what the segments' indexes return
};
// "approximate", "exact" or "dense".
absl::StatusOr<SearchMode> ParseSearchMode(std::string_view name);

struct SearchOptions {
  SearchMode mode = SearchMode::kApproximate;
  int top_k = 16;
  QueryScope scope = {};
  bool audit = false;
  // Asked between the parts of a search: once it is cancelled, Attend fails with Cancelled.
  Progress progress = {};
};

// Share of a token's attention, summed over queries, per memory layer.
struct SlotMass {
  Slot slot = 0;
  std::vector<float>
      mass;  // [n_mem_layers], sums over query heads and positions of softmax weights
};

struct AuditResult {
  std::vector<double> captured_mass;  // per memory layer: share of the dense softmax that was kept
  std::vector<double>
      needle_recall;  // per memory layer, over confident queries; 1 if there are none
  std::vector<int64_t> n_confident;  // per memory layer
};

// Pins one generation. Not thread-safe; searchers of one generation do not disturb each other.
class MemorySearcher : public model::ShardSource {
 public:
  // `device` outlives the searcher; the generation is all that it reads. On a device with memory of
  // its own the search is made there, where the memory fits it (device_searcher.h); else on the
  // host, or it is an error, ResourceExhausted, if the device's entry_limit_bytes() is set.
  // NotFound for unknown collections or documents in the scope.
  static absl::StatusOr<std::unique_ptr<MemorySearcher>> Create(
      compute::Device* device, std::shared_ptr<const Generation> generation,
      const SearchOptions& options);

  // Tokens that are not in the store (a conversation's earlier turns): searched exactly beside it,
  // never attributed. Kept in the type of the stored entries.
  virtual void AddSessionWindow(model::EncodedWindow window) = 0;
  virtual size_t n_session_windows() const = 0;
  // Forgets the latest ones, down to n.
  virtual void TruncateSessionWindows(size_t n) = 0;

  // Mass collected since the last call of ResetMass, unordered.
  virtual std::vector<SlotMass> Mass() const = 0;
  // (positions × heads) summed over so far, per memory layer: divide by it for a mean share.
  virtual int64_t n_rows() const = 0;
  virtual void ResetMass() = 0;

  // For people: why the host searches where a device was to. Empty: it is searched where it was to
  // be.
  const std::string& host_note() const { return host_note_; }

  virtual AuditResult Audit() const = 0;
  virtual const Generation& generation() const = 0;
  virtual const QueryScope& scope() const = 0;
  virtual bool Allows(Slot slot) const = 0;  // live and in scope
  virtual uint64_t n_tokens() const = 0;     // in scope

 private:
  std::string host_note_;
};

}  // namespace fovea::memory
