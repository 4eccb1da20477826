#include "storage/commit_witness.h"

#include <string>
#include <string_view>

#include "base/hash.h"
#include "storage/byte_io.h"

namespace fovea::storage {
namespace {

constexpr std::string_view kMagic = "foveaack";
constexpr size_t kWitnessBytes = 8 + 8 + 8;

std::string Encode(uint64_t epoch) {
  std::string bytes(kMagic);
  ByteWriter out(&bytes);
  out.U64(epoch);
  out.U64(Checksum64(bytes));
  return bytes;
}

}  // namespace

std::optional<uint64_t> ReadWitness(rocksdb::FileSystem& file_system,
                                    const std::filesystem::path& folder) {
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  if (!file_system.NewSequentialFile(folder / kWitnessFileName, {}, &file, nullptr).ok()) {
    return std::nullopt;
  }
  char buffer[kWitnessBytes];
  rocksdb::Slice bytes;
  if (!file->Read(sizeof(buffer), {}, &bytes, buffer, nullptr).ok()) return std::nullopt;
  ByteReader in({bytes.data(), bytes.size()});
  in.Raw(kMagic.size());
  const uint64_t epoch = in.U64();
  if (!in.ok() || Encode(epoch) != std::string_view(bytes.data(), bytes.size())) {
    return std::nullopt;
  }
  return epoch;
}

CommitWitness::CommitWitness(rocksdb::FileSystem& file_system,
                             const std::filesystem::path& folder) {
  const std::string path = folder / kWitnessFileName;
  if (!file_system.FileExists(path, {}, nullptr).ok()) {
    std::unique_ptr<rocksdb::FSWritableFile> created;
    if (!file_system.NewWritableFile(path, {}, &created, nullptr).ok()) return;
    if (!created->Close({}, nullptr).ok()) return;
  }
  if (!file_system.NewRandomRWFile(path, {}, &file_, nullptr).ok()) file_.reset();
}

void CommitWitness::Write(uint64_t epoch) {
  if (file_ == nullptr) return;
  const std::string bytes = Encode(epoch);
  file_->Write(0, bytes, {}, nullptr).PermitUncheckedError();
}

}  // namespace fovea::storage
