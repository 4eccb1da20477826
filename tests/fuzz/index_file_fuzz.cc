// Index files, as they are and with their hash made right: their structure, not what FAISS reads
// (which no byte reaches that this program did not write).
#include <cstring>

#include "base/hash.h"
#include "fuzz_input.h"
#include "index/index_file.h"

namespace {

void Check(const std::filesystem::path& path) {
  const auto file = fovea::index::ReadIndexFile(path);
  fovea::fuzz::CheckMessage(file.status());
  if (!file.ok()) return;
  fovea::fuzz::Require(file->blobs.size() == file->trailer.heads.size(), "a blob for each head");
  unsigned sum = 0;
  for (const std::string_view blob : file->blobs) {
    if (blob.empty()) continue;
    sum += static_cast<unsigned char>(blob.front()) + static_cast<unsigned char>(blob.back());
  }
  for (const auto& head : file->trailer.heads) {
    fovea::fuzz::Require(head.mean.size() == static_cast<size_t>(file->trailer.head_dim),
                         "a mean of each dimension");
  }
  fovea::fuzz::Require(sum < ~0u, "never");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fovea::fuzz::ScratchFolder folder;
  std::string bytes(fovea::fuzz::AsView(data, size));
  Check(folder.Write("index", bytes));
  // The input without its last 16 bytes, which are those of the hash in a whole file.
  bytes.resize(bytes.size() - std::min<size_t>(bytes.size(), 16));
  fovea::FastHasher hasher;
  hasher.Update(bytes);
  const fovea::Hash128 hash = hasher.Finish();
  for (const uint64_t half : {hash.low, hash.high}) {
    char little_endian[sizeof half];
    std::memcpy(little_endian, &half, sizeof half);
    bytes.append(little_endian, sizeof half);
  }
  Check(folder.Write("index", bytes));
  return 0;
}
