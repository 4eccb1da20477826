// Blocks where they lie in the store's files. RocksDB hands out copies of what it read and has no
// call that names the place. But it takes what a file system returns for a read, and checks that:
// here reads of blob files can be answered with mapped memory, and the caller is told which.
#pragma once

#include <memory>
#include <string_view>

#include "base/file.h"
#include "rocksdb/file_system.h"

namespace fovea::storage {

// `base`, with blob files that are mapped when a MappedReads asks for it.
std::shared_ptr<rocksdb::FileSystem> MapBlobFiles(std::shared_ptr<rocksdb::FileSystem> base);

// While it lives, its thread's reads of blob files are answered with mapped memory, as far as the
// store's file system can do it. One at a time in a thread.
class MappedReads {
 public:
  MappedReads();
  ~MappedReads();
  MappedReads(const MappedReads&) = delete;
  MappedReads& operator=(const MappedReads&) = delete;

  // The last of these reads, bytes of `file`; null where there was none.
  struct Read {
    std::shared_ptr<const MappedFile> file;
    std::string_view bytes;
  };
  const Read& last() const { return last_; }

 private:
  friend class MappedBlobFile;
  Read last_;
};

}  // namespace fovea::storage
