#include "compute/device.h"

#include "compute/cpu/choose_precision.h"
#include "compute/cpu/cpu_device.h"

namespace fovea::compute {

std::string_view PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return "float32";
    case Precision::kInt8:
      return "int8";
  }
  return "float32";
}

absl::StatusOr<std::unique_ptr<Device>> Device::Create(std::string_view spec, int n_threads,
                                                       std::string_view precision) {
  if (n_threads < 0) {
    return absl::InvalidArgumentError(
        StrCat("number of threads: ", n_threads, ", want at least 1, or 0 for all processors"));
  }
  if (spec == "cpu") {
    auto device = std::make_unique<cpu::CpuDevice>(n_threads > 0 ? n_threads : NumProcessors());
    device->set_exact(precision == PrecisionName(Precision::kFloat32));
    if (precision == "auto") {
      device->set_precision(cpu::FasterPrecision());
    } else if (precision == PrecisionName(Precision::kInt8)) {
      device->set_precision(Precision::kInt8);
    } else if (precision != PrecisionName(Precision::kFloat32)) {
      return absl::InvalidArgumentError(
          StrCat("precision '", precision, "': unknown; use 'auto', 'float32' or 'int8'"));
    }
    return device;
  }
  if (spec == "cuda" || spec.starts_with("cuda:")) {
    return absl::UnimplementedError(
        StrCat("device '", spec, "': this build has no CUDA part; use 'cpu'"));
  }
  return absl::InvalidArgumentError(StrCat("device '", spec, "': unknown; use 'cpu'"));
}

absl::Status Device::Reserve(size_t size_bytes, Buffer* buffer) {
  if (buffer->data<void>() != nullptr && buffer->size_bytes() >= size_bytes)
    return absl::OkStatus();
  *buffer = Buffer();  // first, so that old and new need not fit together
  ASSIGN_OR_RETURN(*buffer, Allocate(size_bytes));
  return absl::OkStatus();
}

}  // namespace fovea::compute
