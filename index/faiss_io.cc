#include "index/faiss_io.h"

#include <faiss/impl/io.h>
#include <faiss/index_io.h>

#include <algorithm>
#include <cstring>

namespace fovea::index {
namespace {

// Hands FAISS's bytes on. FAISS ends with an exception when fewer are taken than given.
class SinkWriter final : public faiss::IOWriter {
 public:
  SinkWriter(BlobSink sink, absl::Status* status) : sink_(sink), status_(status) {}
  size_t operator()(const void* data, size_t size, size_t n) override {
    if (status_->ok() && size * n > 0) {
      *status_ = sink_({static_cast<const char*>(data), size * n});
    }
    return status_->ok() ? n : 0;
  }

 private:
  BlobSink sink_;
  absl::Status* status_;
};

class BytesReader final : public faiss::IOReader {
 public:
  explicit BytesReader(std::string_view* bytes) : bytes_(bytes) {}
  size_t operator()(void* data, size_t size, size_t n) override {
    if (size == 0 || n == 0) return n;
    n = std::min(n, bytes_->size() / size);
    std::memcpy(data, bytes_->data(), size * n);
    bytes_->remove_prefix(size * n);
    return n;
  }

 private:
  std::string_view* bytes_;
};

}  // namespace

void WriteFaiss(const faiss::Index* index, BlobSink sink, absl::Status* sink_status) {
  SinkWriter writer(sink, sink_status);
  faiss::write_index(index, &writer);
}

std::unique_ptr<faiss::Index> ReadFaiss(std::string_view* bytes) {
  BytesReader reader(bytes);
  return std::unique_ptr<faiss::Index>(faiss::read_index(&reader));
}

}  // namespace fovea::index
