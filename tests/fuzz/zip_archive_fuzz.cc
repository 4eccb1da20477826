// Zip archives: the directory, and every member unpacked.
#include "base/zip_archive.h"
#include "fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint64_t kMaxBytes = 1 << 20;
  const auto archive = fovea::ZipArchive::Open(fovea::fuzz::AsView(data, size));
  fovea::fuzz::CheckMessage(archive.status());
  if (!archive.ok()) return 0;
  uint64_t packed_bytes = 0;
  for (const fovea::ZipMember& member : archive->members()) {
    packed_bytes += archive->PackedBytes(member).size();
    const auto bytes = archive->Read(member, kMaxBytes);
    fovea::fuzz::CheckMessage(bytes.status());
    if (!bytes.ok()) continue;
    fovea::fuzz::Require(bytes->size() == member.size_bytes, "a member of the size that it has");
    fovea::fuzz::Require(archive->Find(member.name) == &member, "a member is found by its name");
  }
  fovea::fuzz::Require(packed_bytes <= size, "members do not share bytes");
  return 0;
}
