#include "compute/embedding.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status CheckTokenId(int32_t id, int64_t vocab_size, int64_t position) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("token id ", id, " at position ", position,
                                           ": want 0 … ", vocab_size - 1,
                                           "; is this the model's own tokenizer?"));
}

absl::Status Embedding(Device& device, const EmbeddingArgs& args) {
  constexpr std::string_view kOp = "Embedding";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "table", args.table, kAnyType, {kAnySize, kAnySize}));
  const int64_t vocab_size = args.table.dim(0);
  const int64_t hidden_size = args.table.dim(1);
  RETURN_IF_ERROR(CheckArgument(
      device, kOp, "out", args.out, kFloat32,
      {args.device_id != nullptr ? 1 : static_cast<int64_t>(args.ids.size()), hidden_size}));
  if (args.device_id != nullptr && (!args.ids.empty() || !device.MayOwn(args.device_id))) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": an id in the device's memory and ", args.ids.size(),
               " others, want the one in memory of the device alone"));
  }
  for (size_t t = 0; t < args.ids.size(); ++t) {
    RETURN_IF_ERROR(CheckTokenId(args.ids[t], vocab_size, static_cast<int64_t>(t)));
  }
  if (args.ids.empty() && args.device_id == nullptr) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::Embedding(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::Embedding(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
