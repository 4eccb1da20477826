#include "model/weights/torch_file.h"

#include <map>
#include <optional>
#include <string>

#include "base/zip_archive.h"
#include "model/weights/file_checks.h"
#include "model/weights/tensor_pickle.h"

namespace fovea::model {
namespace {

constexpr std::string_view kPickleName = "/data.pkl";
// Some 200 bytes a tensor; read, it takes at most a hundred times as much memory.
constexpr uint64_t kMaxPickleBytes = uint64_t{4} << 20;

// What the first bytes are, where they are no zip archive.
absl::Status ExplainOtherFormat(std::string_view bytes) {
  // The old format begins with a pickled number, 0x1950a86a20f9469cfc6c.
  constexpr std::string_view kLegacyMagic(
      "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14);
  if (bytes.starts_with(kLegacyMagic)) {
    return absl::UnimplementedError(
        "the format of PyTorch before 1.6 (not a zip archive); load it there and torch.save it "
        "again, or convert it to safetensors");
  }
  constexpr std::string_view kTarMagic = "ustar";
  if (bytes.size() > 262 && bytes.substr(257, kTarMagic.size()) == kTarMagic) {
    return absl::UnimplementedError("the format of PyTorch before 0.1.10 (a tar archive)");
  }
  return absl::InvalidArgumentError("no PyTorch file: it does not begin as a zip archive");
}

bool IsContiguous(const PickledTensor& tensor) {
  int64_t stride = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != stride) return false;
    if (__builtin_mul_overflow(stride, tensor.shape[i], &stride)) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TorchFile>> TorchFile::Open(const std::filesystem::path& path) {
  auto file = std::make_unique<TorchFile>();
  ASSIGN_OR_RETURN(file->file_, MappedFile::Open(path));
  const absl::Status status = file->Parse();
  if (!status.ok()) return Annotate(status, path.native());
  return file;
}

absl::Status TorchFile::Parse() {
  const std::string_view bytes = file_->bytes();
  if (!bytes.starts_with("PK\x03\x04")) return ExplainOtherFormat(bytes);
  const absl::StatusOr<ZipArchive> archive = ZipArchive::Open(bytes);
  if (absl::IsDataLoss(archive.status())) {
    return absl::InvalidArgumentError(archive.status().message());
  }
  RETURN_IF_ERROR(archive.status());
  std::map<std::string_view, const ZipMember*> by_name;
  const ZipMember* pickle = nullptr;
  for (const ZipMember& member : archive->members()) {
    if (member.encrypted || member.method != 0) {
      return absl::UnimplementedError(StrCat("member ", Printable(member.name),
                                             " is compressed or encrypted; torch.save stores "
                                             "members as they are"));
    }
    by_name.emplace(member.name, &member);
    if (!member.name.ends_with(kPickleName)) continue;
    if (pickle != nullptr) return absl::InvalidArgumentError("two members named data.pkl");
    pickle = &member;
  }
  if (pickle == nullptr) {
    return absl::InvalidArgumentError("no member named data.pkl: not written by torch.save");
  }
  if (pickle->size_bytes > kMaxPickleBytes) {
    return absl::InvalidArgumentError(
        StrCat("a pickle of ", pickle->size_bytes, " bytes, the limit is ", kMaxPickleBytes));
  }
  const std::string prefix =
      pickle->name.substr(0, pickle->name.size() - kPickleName.size() + 1);  // with the slash
  if (const auto order = by_name.find(prefix + "byteorder"); order != by_name.end()) {
    const std::string_view name = archive->PackedBytes(*order->second);
    if (name != "little") {
      return absl::UnimplementedError(StrCat("byte order '", Printable(name), "', want 'little'"));
    }
  }

  ASSIGN_OR_RETURN(const std::vector<PickledTensor> pickled,
                   ReadTensorPickle(archive->PackedBytes(*pickle)));
  for (const PickledTensor& tensor : pickled) {
    const std::string name = Printable(tensor.name);
    const auto record = by_name.find(StrCat(prefix, "data/", tensor.storage));
    if (record == by_name.end()) {
      return absl::InvalidArgumentError(
          StrCat(name, ": its record data/", Printable(tensor.storage), " is missing"));
    }
    const uint64_t record_bytes = record->second->size_bytes;
    const absl::StatusOr<size_t> storage_bytes =
        TensorBytes(tensor.dtype, std::vector<int64_t>{tensor.storage_values});
    if (!storage_bytes.ok() || *storage_bytes != record_bytes) {
      return absl::InvalidArgumentError(
          StrCat(name, ": a storage of ", tensor.storage_values, " values of type ",
                 compute::Traits(tensor.dtype).name, ", its record has ", record_bytes, " bytes"));
    }
    if (!IsContiguous(tensor)) {
      return absl::UnimplementedError(StrCat(name, ": shape ", ShapeString(tensor.shape),
                                             " with strides ", ShapeString(tensor.strides),
                                             " is not contiguous; save tensor.contiguous()"));
    }
    const absl::StatusOr<size_t> size = TensorBytes(tensor.dtype, tensor.shape);
    if (!size.ok()) return Annotate(size.status(), name);
    const auto value_bytes = static_cast<uint64_t>(compute::Traits(tensor.dtype).block_bytes);
    // Compared in values: offset and size are at most the storage's, so that nothing overflows.
    const uint64_t n_values = *size / value_bytes;
    const auto storage_values = static_cast<uint64_t>(tensor.storage_values);
    const auto offset = static_cast<uint64_t>(tensor.offset_values);
    if (n_values > storage_values || offset > storage_values - n_values) {
      return absl::InvalidArgumentError(StrCat(name, ": ", n_values, " values at ", offset,
                                               ", its storage has ", storage_values));
    }
    tensors_.push_back({tensor.name, tensor.dtype, tensor.shape,
                        reinterpret_cast<const std::byte*>(bytes.data()) + record->second->offset +
                            offset * value_bytes,
                        *size});
  }
  SortTensors();
  return absl::OkStatus();
}

}  // namespace fovea::model
