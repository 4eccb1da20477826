// What a Mutation collects: encoded records, in order, and what Commit has to check about them.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/status.h"
#include "storage/column_families.h"
#include "storage/document_store.h"

namespace fovea::storage {

struct Mutation::Impl {
  enum class Action { kPut, kDelete, kDeleteRange };
  struct Operation {
    Action action;
    ColumnFamily family;
    std::string key;
    std::string value;  // of kDeleteRange: the key that the range ends before
  };

  void Put(ColumnFamily family, std::string key, absl::StatusOr<std::string> value);
  void Delete(ColumnFamily family, std::string key);
  // Every key that begins with the eight bytes of `number`.
  void DeleteAllOf(ColumnFamily family, uint64_t number);
  void Fail(absl::Status status);

  std::vector<Operation> operations;
  size_t size_bytes = 0;
  absl::Status status;  // the first record that could not be encoded; Commit returns it

  std::optional<StoreSettings> settings;
  // n_kv_heads, head_dim and type of the blocks put.
  std::set<std::tuple<int64_t, int64_t, EntryType>> block_kinds;
  std::optional<int> last_memory_layer;  // the largest that a block was put at
  int format_version = kFormatVersion;   // the oldest that can say what was put
  Slot slot_end = 0;                     // of the last window put
  DocumentNumber last_document = 0;      // the largest number put
  std::optional<uint64_t> last_segment;  // the largest id put
  std::optional<Slot> next_slot;
  std::optional<DocumentNumber> next_document;
  std::optional<uint64_t> next_segment;
  std::optional<uint64_t> generation;
};

}  // namespace fovea::storage
