#include "compute/embedding.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status Embedding(Device& device, const EmbeddingArgs& args) {
  constexpr std::string_view kOp = "Embedding";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "table", args.table, kAnyType, {kAnySize, kAnySize}));
  const int64_t vocab_size = args.table.dim(0);
  const int64_t hidden_size = args.table.dim(1);
  RETURN_IF_ERROR(CheckArgument(device, kOp, "out", args.out, kFloat32,
                                {static_cast<int64_t>(args.ids.size()), hidden_size}));
  for (size_t t = 0; t < args.ids.size(); ++t) {
    if (args.ids[t] < 0 || args.ids[t] >= vocab_size) {
      return absl::InvalidArgumentError(StrCat("token id ", args.ids[t], " at position ", t,
                                               ": want 0 … ", vocab_size - 1,
                                               "; is this the model's own tokenizer?"));
    }
  }
  if (args.ids.empty()) return absl::OkStatus();
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
