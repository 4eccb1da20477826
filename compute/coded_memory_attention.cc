#include "compute/coded_memory_attention.h"

#include "compute/check_argument.h"
#include "compute/check_memory_parts.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {
namespace {

absl::Status CheckOwned(const Device& device, std::string_view op, std::string_view argument,
                        const void* data) {
  if (data != nullptr && device.MayOwn(data)) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat(op, ": ", argument,
                                           data == nullptr ? " are not given"
                                                           : " do not lie in the device's "
                                                             "memory"));
}

}  // namespace

absl::Status CodedMemoryAttention(Device& device, const CodedMemoryAttentionArgs& args) {
  constexpr std::string_view kOp = "CodedMemoryAttention";
  RETURN_IF_ERROR(CheckMemoryQueries(device, kOp, args.queries, args.output, args.lse, args.top_k,
                                     args.positions != nullptr && args.scores != nullptr));
  RETURN_IF_ERROR(CheckNumMemoryParts(kOp, args.parts.size()));
  if (args.n_candidates < 1 || args.n_candidates > kMaxCandidates) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": ", args.n_candidates, " candidates, want 1 … ", kMaxCandidates));
  }
  int64_t n_tokens = 0;
  for (const CodedMemoryPart& part : args.parts) {
    RETURN_IF_ERROR(CheckMemoryPart(device, kOp, args.queries, args.parts[0].entries, part.entries,
                                    !args.output.is_none(), &n_tokens));
    const KeyCodes& codes = part.codes;
    if (part.found.n_found != 0) {
      if (part.found.n_found < 0 || part.found.n_found > kMaxFound) {
        return absl::InvalidArgumentError(
            StrCat(kOp, ": an index found ", part.found.n_found, " keys, want 1 … ", kMaxFound));
      }
      RETURN_IF_ERROR(CheckOwned(device, kOp, "found keys", part.found.keys));
      if (part.found.tokens != nullptr) {
        RETURN_IF_ERROR(CheckOwned(device, kOp, "tokens of keys", part.found.tokens));
      }
      continue;
    }
    if (codes.bits == 0 || part.entries.keys.dim(1) == 0) continue;
    if (codes.bits != 2 && codes.bits != 4 && codes.bits != 8) {
      return absl::InvalidArgumentError(
          StrCat(kOp, ": codes of ", codes.bits, " bits, want 2, 4 or 8"));
    }
    RETURN_IF_ERROR(CheckOwned(device, kOp, "codes", codes.codes));
    RETURN_IF_ERROR(CheckOwned(device, kOp, "factors", codes.factors));
    RETURN_IF_ERROR(CheckOwned(device, kOp, "means", codes.mean));
    RETURN_IF_ERROR(CheckOwned(device, kOp, "rotations", codes.rotation));
  }
  if (args.queries.dim(0) == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::CodedMemoryAttention(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::CodedMemoryAttention(device, args);
  }
  return absl::OkStatus();
}

absl::Status EncodeKeys(Device& device, const EncodeKeysArgs& args) {
  constexpr std::string_view kOp = "EncodeKeys";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "keys", args.keys, kFloat32OrBFloat16,
                                {kAnySize, kAnySize, args.coder->head_dim()}, Layout::kDenseRows,
                                Place::kReadable));
  if (args.keys.dim(1) > 1 && args.keys.stride(1) != args.keys.dim(2)) {
    return absl::InvalidArgumentError(StrCat(kOp, ": keys of a head lie ", args.keys.stride(1),
                                             " elements apart, want ", args.keys.dim(2)));
  }
  if (args.keys.size() == 0) return absl::OkStatus();
  RETURN_IF_ERROR(CheckOwned(device, kOp, "codes", args.codes));
  RETURN_IF_ERROR(CheckOwned(device, kOp, "factors", args.factors));
  RETURN_IF_ERROR(CheckOwned(device, kOp, "means", args.mean));
  RETURN_IF_ERROR(CheckOwned(device, kOp, "rotations", args.rotation));
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::EncodeKeys(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::EncodeKeys(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
