// A file system for RocksDB on which things go wrong as told: failed, torn and refused writes, a
// full disk, damaged reads, the process killed in the middle of a write, a power cut. Pass
// file_system() in StoreOptions::file_system.
//
//   FaultFileSystem disk;
//   disk.FailAt(FileOperation::kSync, 3, FileFailure::kIoError);
//   OpenStore(folder, OpenMode::kWrite, {.file_system = disk.file_system()});
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

namespace rocksdb {
class FileSystem;
}

namespace fovea::storage {

enum class FileOperation {
  kAppend,  // bytes written to a file, in place or at its end
  kSync,    // of a file or a folder
  kCreate,
  kRename,
  kDelete,
  kChange,  // any of the above: everything that changes what is on disk
  kRead,
};

enum class FileFailure { kIoError, kNoSpace };

// Thread-safe. Copies share one state, which outlives every file opened through it.
class FaultFileSystem {
 public:
  FaultFileSystem();

  std::shared_ptr<rocksdb::FileSystem> file_system() const;

  // Operations since construction, faulty ones too.
  int64_t n_operations(FileOperation operation) const;

  // The nth (from 1, counted from now) operation fails without having any effect; with `lasting`
  // every later one too. `name_contains` limits it to files whose path contains that.
  void FailAt(FileOperation operation, int64_t nth, FileFailure failure, bool lasting = false,
              const std::string& name_contains = "");
  // The nth append writes its first half and fails; every later change fails too.
  void TearAppendAt(int64_t nth);
  // The process is killed (SIGKILL) instead of the nth change; with `torn`, after the first half
  // of it if it is an append.
  void KillAt(int64_t nth, bool torn);
  // Room for so many bytes; an append beyond fails with "no space left on device" after writing
  // what fits. Deleted files give no room back.
  void LimitBytes(int64_t n_bytes);
  // Every read of that byte sees it exclusive-or `mask`. The file on disk stays as it is.
  void FlipOnRead(const std::filesystem::path& file, uint64_t offset, uint8_t mask);
  // Calls `call` once, before the next file whose path contains `name_contains` is opened for
  // reading: what another process does in that moment.
  void CallBeforeOpen(const std::string& name_contains, std::function<void()> call);
  // All of the above end.
  void Heal();

  // What a power cut may leave: files cut to what was synced of them, files of which the folder
  // was never synced gone, unless they are older than a rename in it. Only files written through
  // this file system; no file may be open.
  void DropUnsynced();

  struct State;

 private:
  std::shared_ptr<State> state_;
  std::shared_ptr<rocksdb::FileSystem> file_system_;
};

}  // namespace fovea::storage
