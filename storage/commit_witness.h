// The epoch of the last commit that was reported as stored, kept beside RocksDB's files. RocksDB's
// log cannot tell a last record that was torn before it was reported from one that was damaged
// after; the witness can, and it also tells a reader how far it has to see.
//
// It is only a witness: rewritten in place without a sync, it may lag behind after a power cut,
// never run ahead, and a store without one works.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "rocksdb/file_system.h"

namespace fovea::storage {

inline constexpr const char* kWitnessFileName = "ACKNOWLEDGED";

// The epoch in `folder`'s witness; empty where there is none or it is damaged.
std::optional<uint64_t> ReadWitness(rocksdb::FileSystem& file_system,
                                    const std::filesystem::path& folder);

class CommitWitness {
 public:
  // A failure leaves a witness that does nothing.
  CommitWitness(rocksdb::FileSystem& file_system, const std::filesystem::path& folder);
  // Errors are dropped: the commit that is witnessed has succeeded.
  void Write(uint64_t epoch);

 private:
  std::unique_ptr<rocksdb::FSRandomRWFile> file_;
};

}  // namespace fovea::storage
