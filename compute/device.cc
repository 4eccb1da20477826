#include "compute/device.h"

#include <charconv>

#include "base/processors.h"
#include "compute/cpu/choose_precision.h"
#include "compute/cpu/cpu_device.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

std::string_view PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return "float32";
    case Precision::kInt8:
      return "int8";
    case Precision::kBFloat16:
      return "bfloat16";
  }
  return "float32";
}

namespace {

// "cuda" or "cuda:N".
bool IsGpu(std::string_view spec, int* number) {
  *number = 0;
  if (spec == "cuda") return true;
  if (!spec.starts_with("cuda:")) return false;
  const char* const end = spec.data() + spec.size();
  const auto [stop, error] = std::from_chars(spec.data() + 5, end, *number);
  return error == std::errc() && stop == end && *number >= 0;
}

absl::Status UnknownPrecision(std::string_view precision, std::string_view device,
                              Precision other) {
  return absl::InvalidArgumentError(StrCat("precision '", precision, "' of device '", device,
                                           "': unknown; use 'auto', 'float32' or '",
                                           PrecisionName(other), "'"));
}

absl::Status SetCpuPrecision(std::string_view precision, Device* device) {
  device->set_exact(precision == PrecisionName(Precision::kFloat32));
  if (precision == "auto") {
    device->set_precision(cpu::FasterPrecision());
  } else if (precision == PrecisionName(Precision::kInt8)) {
    device->set_precision(Precision::kInt8);
  } else if (precision != PrecisionName(Precision::kFloat32)) {
    return UnknownPrecision(precision, "cpu", Precision::kInt8);
  }
  return absl::OkStatus();
}

absl::StatusOr<Precision> ParseCudaPrecision(std::string_view precision, std::string_view spec) {
  if (precision == "auto" || precision == PrecisionName(Precision::kBFloat16)) {
    return Precision::kBFloat16;
  }
  if (precision == PrecisionName(Precision::kFloat32)) return Precision::kFloat32;
  return UnknownPrecision(precision, spec, Precision::kBFloat16);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> Device::Create(std::string_view spec, int n_threads,
                                                       std::string_view precision) {
  if (n_threads < 0) {
    return absl::InvalidArgumentError(
        StrCat("number of threads: ", n_threads, ", want at least 1, or 0 for all processors"));
  }
  if (spec == "cpu") {
    auto device = std::make_unique<cpu::CpuDevice>(n_threads > 0 ? n_threads : NumProcessors());
    RETURN_IF_ERROR(SetCpuPrecision(precision, device.get()));
    return device;
  }
  int number = 0;
  if (IsGpu(spec, &number)) {
    ASSIGN_OR_RETURN(const Precision products, ParseCudaPrecision(precision, spec));
    ASSIGN_OR_RETURN(std::unique_ptr<Device> device, cuda::CreateDevice(number, n_threads));
    device->set_exact(true);  // few rows are
    device->set_precision(products);
    return device;
  }
  return absl::InvalidArgumentError(
      StrCat("device '", spec, "': unknown; use 'cpu', 'cuda' or 'cuda:N'"));
}

absl::StatusOr<Buffer> Device::Allocate(size_t size_bytes) {
  if (is_recording_) {
    return absl::FailedPreconditionError(
        StrCat(size_bytes, " bytes asked for while ops are recorded: carry them out once before"));
  }
  return Buffer::Allocate(allocator_, size_bytes);
}

absl::StatusOr<std::unique_ptr<Recording>> Device::Record(std::function<absl::Status()> /*queue*/) {
  return absl::UnimplementedError("this device records no ops");
}

absl::Status Device::Reserve(size_t size_bytes, Buffer* buffer) {
  if (buffer->data<void>() != nullptr && buffer->size_bytes() >= size_bytes)
    return absl::OkStatus();
  if (is_recording_) return Allocate(size_bytes).status();
  *buffer = Buffer();  // first, so that old and new need not fit together
  ASSIGN_OR_RETURN(*buffer, Allocate(size_bytes));
  return absl::OkStatus();
}

}  // namespace fovea::compute
