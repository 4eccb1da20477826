#include "compute/embedding.h"

#include "compute/cpu/ops.h"
#include "compute/unavailable.h"

namespace fovea::compute {

absl::Status Embedding(Device& device, const EmbeddingArgs& args) {
  for (size_t t = 0; t < args.ids.size(); ++t) {
    if (args.ids[t] < 0 || args.ids[t] >= args.vocab_size) {
      return absl::InvalidArgumentError(StrCat("token id ", args.ids[t], " at position ", t,
                                               ": want 0 … ", args.vocab_size - 1,
                                               "; is this the model's own tokenizer?"));
    }
  }
  if (args.ids.empty()) return absl::OkStatus();
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::Embedding(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return Unavailable("Embedding");
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
