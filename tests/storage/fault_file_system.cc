#include "tests/storage/fault_file_system.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "rocksdb/file_system.h"

namespace fovea::storage {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

struct FaultFileSystem::State {
  // What an operation is allowed to do.
  struct Verdict {
    IOStatus status;
    size_t n_bytes = 0;  // of an append that are written before the status is returned
  };

  Verdict Decide(FileOperation operation, const std::string& name, size_t n_bytes = 0) {
    const std::lock_guard<std::mutex> lock(mutex);
    ++counts[static_cast<size_t>(operation)];
    const bool changes = operation != FileOperation::kRead;
    if (changes) ++counts[static_cast<size_t>(FileOperation::kChange)];
    Verdict verdict{IOStatus::OK(), n_bytes};
    if (kill_at && changes && --*kill_at == 0) {
      if (kill_torn && operation == FileOperation::kAppend) {
        verdict.n_bytes = n_bytes / 2;
        kill_after_append = true;
        return verdict;
      }
      Kill();
    }
    if (tear_at && changes && operation == FileOperation::kAppend && --*tear_at == 0) {
      torn = true;
      tear_at.reset();
      return {IOStatus::IOError("injected: torn append to " + name), n_bytes / 2};
    }
    if (torn && changes) return {IOStatus::IOError("injected: after a torn append: " + name), 0};
    if (fail_at &&
        (fail_operation == operation || (fail_operation == FileOperation::kChange && changes)) &&
        name.find(fail_name) != std::string::npos) {
      if (*fail_at > 0) --*fail_at;
      if (*fail_at == 0) {
        if (!fail_lasting) fail_at.reset();
        return {fail_failure == FileFailure::kNoSpace
                    ? IOStatus::NoSpace("injected: no space for " + name)
                    : IOStatus::IOError("injected: " + name),
                0};
      }
    }
    if (room && operation == FileOperation::kAppend) {
      if (static_cast<int64_t>(n_bytes) > *room) {
        verdict = {IOStatus::NoSpace("injected: disk full: " + name), static_cast<size_t>(*room)};
        room = 0;
        return verdict;
      }
      *room -= static_cast<int64_t>(n_bytes);
    }
    return verdict;
  }

  [[noreturn]] static void Kill() {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }

  void AfterAppend() {
    bool kill_now = false;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      kill_now = kill_after_append;
    }
    if (kill_now) Kill();
  }

  // `bytes` were read at `offset`; returns them with the flipped byte, in `scratch` where needed.
  Slice Flip(const std::string& name, uint64_t offset, const Slice& bytes, char* scratch) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (flip_name != name || flip_offset < offset || flip_offset - offset >= bytes.size()) {
      return bytes;
    }
    if (bytes.data() != scratch) std::copy_n(bytes.data(), bytes.size(), scratch);
    scratch[flip_offset - offset] ^= static_cast<char>(flip_mask);
    return {scratch, bytes.size()};
  }

  void BeforeOpen(const std::string& name) {
    std::function<void()> call;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (open_call && name.find(open_name) != std::string::npos)
        call = std::exchange(open_call, {});
    }
    if (call) call();
  }

  void Synced(const std::string& name, uint64_t size_bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    synced_bytes[name] = size_bytes;
  }

  mutable std::mutex mutex;
  std::array<int64_t, 7> counts{};
  std::optional<int64_t> fail_at;
  FileOperation fail_operation = FileOperation::kChange;
  FileFailure fail_failure = FileFailure::kIoError;
  bool fail_lasting = false;
  std::string fail_name;
  std::optional<int64_t> tear_at;
  bool torn = false;
  std::optional<int64_t> kill_at;
  bool kill_torn = false;
  bool kill_after_append = false;
  std::optional<int64_t> room;
  std::string flip_name;
  uint64_t flip_offset = 0;
  uint8_t flip_mask = 0;
  std::string open_name;
  std::function<void()> open_call;
  // For DropUnsynced: what is safe of each file written here, and the files whose folder was not
  // synced since they were made.
  std::map<std::string, uint64_t> synced_bytes;
  std::set<std::string> unsynced_names;
};

namespace {

using State = FaultFileSystem::State;

class FaultyWritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FaultyWritableFile(std::unique_ptr<rocksdb::FSWritableFile> target, std::string name,
                     std::shared_ptr<State> state)
      : FSWritableFileOwnerWrapper(std::move(target)),
        name_(std::move(name)),
        state_(std::move(state)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* context) override {
    const State::Verdict verdict = state_->Decide(FileOperation::kAppend, name_, data.size());
    if (verdict.n_bytes > 0) {
      IOStatus status =
          FSWritableFileOwnerWrapper::Append({data.data(), verdict.n_bytes}, options, context);
      if (!status.ok()) return status;
    }
    state_->AfterAppend();
    return verdict.status;
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& /*info*/, IODebugContext* context) override {
    return Append(data, options, context);
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
    return SyncWith(options, context, false);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return SyncWith(options, context, true);
  }

 private:
  IOStatus SyncWith(const IOOptions& options, IODebugContext* context, bool full) {
    const State::Verdict verdict = state_->Decide(FileOperation::kSync, name_);
    if (!verdict.status.ok()) return verdict.status;
    IOStatus status = full ? FSWritableFileOwnerWrapper::Fsync(options, context)
                           : FSWritableFileOwnerWrapper::Sync(options, context);
    if (status.ok()) state_->Synced(name_, target()->GetFileSize(options, context));
    return status;
  }

  const std::string name_;
  const std::shared_ptr<State> state_;
};

class FaultyRandomRWFile : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  FaultyRandomRWFile(std::unique_ptr<rocksdb::FSRandomRWFile> target, std::string name,
                     std::shared_ptr<State> state)
      : FSRandomRWFileOwnerWrapper(std::move(target)),
        name_(std::move(name)),
        state_(std::move(state)) {}

  IOStatus Write(uint64_t offset, const Slice& data, const IOOptions& options,
                 IODebugContext* context) override {
    const State::Verdict verdict = state_->Decide(FileOperation::kAppend, name_, data.size());
    if (verdict.n_bytes > 0) {
      IOStatus status = FSRandomRWFileOwnerWrapper::Write(offset, {data.data(), verdict.n_bytes},
                                                          options, context);
      if (!status.ok()) return status;
    }
    state_->AfterAppend();
    return verdict.status;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
    const State::Verdict verdict = state_->Decide(FileOperation::kSync, name_);
    return verdict.status.ok() ? FSRandomRWFileOwnerWrapper::Sync(options, context)
                               : verdict.status;
  }

 private:
  const std::string name_;
  const std::shared_ptr<State> state_;
};

class FaultySequentialFile : public rocksdb::FSSequentialFileOwnerWrapper {
 public:
  FaultySequentialFile(std::unique_ptr<rocksdb::FSSequentialFile> target, std::string name,
                       std::shared_ptr<State> state)
      : FSSequentialFileOwnerWrapper(std::move(target)),
        name_(std::move(name)),
        state_(std::move(state)) {}

  IOStatus Read(size_t n, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* context) override {
    const State::Verdict verdict = state_->Decide(FileOperation::kRead, name_);
    if (!verdict.status.ok()) return verdict.status;
    IOStatus status = FSSequentialFileOwnerWrapper::Read(n, options, result, scratch, context);
    if (!status.ok()) return status;
    *result = state_->Flip(name_, offset_, *result, scratch);
    offset_ += result->size();
    return status;
  }
  IOStatus Skip(uint64_t n) override {
    offset_ += n;
    return FSSequentialFileOwnerWrapper::Skip(n);
  }

 private:
  const std::string name_;
  const std::shared_ptr<State> state_;
  uint64_t offset_ = 0;
};

class FaultyRandomAccessFile : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  FaultyRandomAccessFile(std::unique_ptr<rocksdb::FSRandomAccessFile> target, std::string name,
                         std::shared_ptr<State> state)
      : FSRandomAccessFileOwnerWrapper(std::move(target)),
        name_(std::move(name)),
        state_(std::move(state)) {}

  IOStatus Read(uint64_t offset, size_t n, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* context) const override {
    const State::Verdict verdict = state_->Decide(FileOperation::kRead, name_);
    if (!verdict.status.ok()) return verdict.status;
    IOStatus status =
        FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, context);
    if (status.ok()) *result = state_->Flip(name_, offset, *result, scratch);
    return status;
  }
  IOStatus MultiRead(rocksdb::FSReadRequest* requests, size_t n_requests, const IOOptions& options,
                     IODebugContext* context) override {
    for (size_t i = 0; i < n_requests; ++i) {
      requests[i].status = Read(requests[i].offset, requests[i].len, options, &requests[i].result,
                                requests[i].scratch, context);
    }
    return IOStatus::OK();
  }

 private:
  const std::string name_;
  const std::shared_ptr<State> state_;
};

class FaultyDirectory : public rocksdb::FSDirectoryWrapper {
 public:
  FaultyDirectory(std::unique_ptr<rocksdb::FSDirectory> target, std::string name,
                  std::shared_ptr<State> state)
      : FSDirectoryWrapper(std::move(target)), name_(std::move(name)), state_(std::move(state)) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return FsyncWithDirOptions(options, context, {});
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* context,
                               const rocksdb::DirFsyncOptions& directory_options) override {
    const State::Verdict verdict = state_->Decide(FileOperation::kSync, name_);
    if (!verdict.status.ok()) return verdict.status;
    IOStatus status = FSDirectoryWrapper::FsyncWithDirOptions(options, context, directory_options);
    if (!status.ok()) return status;
    const std::lock_guard<std::mutex> lock(state_->mutex);
    std::erase_if(state_->unsynced_names, [this](const std::string& name) {
      return std::filesystem::path(name).parent_path() == std::filesystem::path(name_);
    });
    return status;
  }

 private:
  const std::string name_;
  const std::shared_ptr<State> state_;
};

class FaultyFileSystem : public rocksdb::FileSystemWrapper {
 public:
  explicit FaultyFileSystem(std::shared_ptr<State> state)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), state_(std::move(state)) {}

  const char* Name() const override { return "FaultyFileSystem"; }

  IOStatus NewSequentialFile(const std::string& name, const FileOptions& options,
                             std::unique_ptr<rocksdb::FSSequentialFile>* result,
                             IODebugContext* context) override {
    state_->BeforeOpen(name);
    IOStatus status = FileSystemWrapper::NewSequentialFile(name, options, result, context);
    if (status.ok()) {
      *result = std::make_unique<FaultySequentialFile>(std::move(*result), name, state_);
    }
    return status;
  }
  IOStatus NewRandomAccessFile(const std::string& name, const FileOptions& options,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                               IODebugContext* context) override {
    state_->BeforeOpen(name);
    IOStatus status = FileSystemWrapper::NewRandomAccessFile(name, options, result, context);
    if (status.ok()) {
      *result = std::make_unique<FaultyRandomAccessFile>(std::move(*result), name, state_);
    }
    return status;
  }
  IOStatus NewWritableFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* result,
                           IODebugContext* context) override {
    const State::Verdict verdict = state_->Decide(FileOperation::kCreate, name);
    if (!verdict.status.ok()) return verdict.status;
    IOStatus status = FileSystemWrapper::NewWritableFile(name, options, result, context);
    if (!status.ok()) return status;
    {
      const std::lock_guard<std::mutex> lock(state_->mutex);
      state_->synced_bytes[name] = 0;
      state_->unsynced_names.insert(name);
    }
    *result = std::make_unique<FaultyWritableFile>(std::move(*result), name, state_);
    return status;
  }
  IOStatus ReopenWritableFile(const std::string& name, const FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* result,
                              IODebugContext* context) override {
    IOStatus status = FileSystemWrapper::ReopenWritableFile(name, options, result, context);
    if (status.ok()) {
      *result = std::make_unique<FaultyWritableFile>(std::move(*result), name, state_);
    }
    return status;
  }
  IOStatus NewRandomRWFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSRandomRWFile>* result,
                           IODebugContext* context) override {
    IOStatus status = FileSystemWrapper::NewRandomRWFile(name, options, result, context);
    if (status.ok()) {
      *result = std::make_unique<FaultyRandomRWFile>(std::move(*result), name, state_);
    }
    return status;
  }
  IOStatus NewDirectory(const std::string& name, const IOOptions& options,
                        std::unique_ptr<rocksdb::FSDirectory>* result,
                        IODebugContext* context) override {
    IOStatus status = FileSystemWrapper::NewDirectory(name, options, result, context);
    if (status.ok()) {
      *result = std::make_unique<FaultyDirectory>(std::move(*result), name, state_);
    }
    return status;
  }
  IOStatus DeleteFile(const std::string& name, const IOOptions& options,
                      IODebugContext* context) override {
    const State::Verdict verdict = state_->Decide(FileOperation::kDelete, name);
    if (!verdict.status.ok()) return verdict.status;
    IOStatus status = FileSystemWrapper::DeleteFile(name, options, context);
    if (status.ok()) {
      const std::lock_guard<std::mutex> lock(state_->mutex);
      state_->synced_bytes.erase(name);
      state_->unsynced_names.erase(name);
    }
    return status;
  }
  // A rename counts as durable at once: journaling file systems order it before what follows it.
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* context) override {
    const State::Verdict verdict = state_->Decide(FileOperation::kRename, to);
    if (!verdict.status.ok()) return verdict.status;
    IOStatus status = FileSystemWrapper::RenameFile(from, to, options, context);
    if (status.ok()) {
      const std::lock_guard<std::mutex> lock(state_->mutex);
      const auto synced = state_->synced_bytes.find(from);
      if (synced != state_->synced_bytes.end()) {
        state_->synced_bytes[to] = synced->second;
        state_->synced_bytes.erase(from);
      }
      // File systems keep the order of changes to a folder: where a power cut leaves this one, as
      // DropUnsynced does, it leaves the names that were made before.
      std::erase_if(state_->unsynced_names, [&to](const std::string& name) {
        return std::filesystem::path(name).parent_path() == std::filesystem::path(to).parent_path();
      });
    }
    return status;
  }

 private:
  const std::shared_ptr<State> state_;
};

}  // namespace

FaultFileSystem::FaultFileSystem()
    : state_(std::make_shared<State>()), file_system_(std::make_shared<FaultyFileSystem>(state_)) {}

std::shared_ptr<rocksdb::FileSystem> FaultFileSystem::file_system() const { return file_system_; }

int64_t FaultFileSystem::n_operations(FileOperation operation) const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->counts[static_cast<size_t>(operation)];
}

void FaultFileSystem::FailAt(FileOperation operation, int64_t nth, FileFailure failure,
                             bool lasting, const std::string& name_contains) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->fail_at = nth;
  state_->fail_operation = operation;
  state_->fail_failure = failure;
  state_->fail_lasting = lasting;
  state_->fail_name = name_contains;
}

void FaultFileSystem::CallBeforeOpen(const std::string& name_contains, std::function<void()> call) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->open_name = name_contains;
  state_->open_call = std::move(call);
}

void FaultFileSystem::TearAppendAt(int64_t nth) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->tear_at = nth;
}

void FaultFileSystem::KillAt(int64_t nth, bool torn) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->kill_at = nth;
  state_->kill_torn = torn;
}

void FaultFileSystem::LimitBytes(int64_t n_bytes) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->room = n_bytes;
}

void FaultFileSystem::FlipOnRead(const std::filesystem::path& file, uint64_t offset, uint8_t mask) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->flip_name = file;
  state_->flip_offset = offset;
  state_->flip_mask = mask;
}

void FaultFileSystem::Heal() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->fail_at.reset();
  state_->tear_at.reset();
  state_->torn = false;
  state_->kill_at.reset();
  state_->room.reset();
  state_->flip_name.clear();
  state_->open_call = {};
}

void FaultFileSystem::DropUnsynced() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  std::error_code ignored;
  for (const auto& [name, size_bytes] : state_->synced_bytes) {
    if (!std::filesystem::exists(name, ignored)) continue;
    if (state_->unsynced_names.contains(name)) {
      std::filesystem::remove(name, ignored);
    } else if (std::filesystem::file_size(name, ignored) > size_bytes) {
      std::filesystem::resize_file(name, size_bytes, ignored);
    }
  }
}

}  // namespace fovea::storage
