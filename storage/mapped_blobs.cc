#include "storage/mapped_blobs.h"

#include <mutex>
#include <string>
#include <utility>

#include "base/status.h"

namespace fovea::storage {
namespace {

thread_local MappedReads* current_reads = nullptr;

}  // namespace

MappedReads::MappedReads() {
  FOVEA_CHECK(current_reads == nullptr);
  current_reads = this;
}
MappedReads::~MappedReads() { current_reads = nullptr; }

class MappedBlobFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  MappedBlobFile(std::unique_ptr<rocksdb::FSRandomAccessFile>&& file, std::string name)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), name_(std::move(name)) {}

  rocksdb::IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions& options,
                         rocksdb::Slice* result, char* scratch,
                         rocksdb::IODebugContext* debug) const override {
    if (MappedReads* const reads = current_reads; reads != nullptr) {
      const std::shared_ptr<const MappedFile>& file = Mapping();
      if (file != nullptr && n <= file->bytes().size() && offset <= file->bytes().size() - n) {
        reads->last_ = {file, file->bytes().substr(offset, n)};
        file->WillRead(reads->last_.bytes);
        *result = rocksdb::Slice(reads->last_.bytes.data(), n);
        return rocksdb::IOStatus::OK();
      }
    }
    return FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, debug);
  }

 private:
  // Null where it cannot be mapped. Files that are read are complete.
  const std::shared_ptr<const MappedFile>& Mapping() const {
    std::call_once(once_, [this] {
      absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(name_);
      if (file.ok()) file_ = *std::move(file);
    });
    return file_;
  }

  const std::string name_;
  mutable std::once_flag once_;
  mutable std::shared_ptr<const MappedFile> file_;
};

namespace {

class MappingFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "fovea mapped blobs"; }

  rocksdb::IOStatus NewRandomAccessFile(const std::string& name,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override {
    const rocksdb::IOStatus status =
        FileSystemWrapper::NewRandomAccessFile(name, options, file, debug);
    if (status.ok() && name.ends_with(".blob")) {
      *file = std::make_unique<MappedBlobFile>(std::move(*file), name);
    }
    return status;
  }
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> MapBlobFiles(std::shared_ptr<rocksdb::FileSystem> base) {
  return std::make_shared<MappingFileSystem>(std::move(base));
}

}  // namespace fovea::storage
