// The file of a layer's index: the bytes of each KV head (a search library's, or codes), then what
// fovea needs to know about them, then a hash over everything. Reading checks the hash first: no
// byte that was not written by fovea gets to the library's reader, which trusts its input.
//
//   file       = magic, blob of each head, trailer, size of the trailer (u64), hash (16 bytes)
//   magic      = "FOVEAIX2"; the digit is the format version
//   trailer    = string spec, string library, u32 n_kv_heads, u32 head_dim, u32 index_dim,
//                u32 is_augmented, u32 n_probe, u32 n_candidates, u64 n_runs, runs, heads
//   run        = u64 first_id, u64 n
//   head       = u64 size of its blob, f32 radius, f32 mean[head_dim]
//   string     = u32 size, bytes
// Version 1, which is still read, has no n_probe and no n_candidates (as if they were 0).
// Numbers are little-endian; the hash is XXH3-128 (low half first) of all bytes before it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "index/key_ids.h"

namespace fovea::index {

struct IndexFileHead {
  std::vector<float> mean;  // [head_dim]
  float radius = 0.0f;
  uint64_t blob_size = 0;  // filled in by WriteIndexFile
};

struct IndexFileTrailer {
  std::string spec;
  std::string library;  // name and version of what the heads' bytes are for
  int64_t head_dim = 0;
  int64_t index_dim = 0;
  bool is_augmented = false;
  int n_probe = 0;  // the calibrated effort; zeros: none
  int n_candidates = 0;
  std::vector<IdRun> runs;
  std::vector<IndexFileHead> heads;
};

// Takes the bytes of a blob in order, in any pieces.
using BlobSink = absl::FunctionRef<absl::Status(std::string_view bytes)>;

// Replaces `path` durably; `write_blob` passes the bytes of one head to its sink.
absl::Status WriteIndexFile(const std::filesystem::path& path, IndexFileTrailer trailer,
                            absl::FunctionRef<absl::Status(size_t head, BlobSink sink)> write_blob);

// A file whose hash and structure are right.
struct IndexFile {
  std::unique_ptr<MappedFile> file;
  IndexFileTrailer trailer;
  std::vector<std::string_view> blobs;  // of `file`, one per head
};
// DataLoss with the reason for a file that is not whole or of another format.
absl::StatusOr<IndexFile> ReadIndexFile(const std::filesystem::path& path);

}  // namespace fovea::index
