#include "compute/attention.h"

#include <vector>

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {
namespace {

absl::Status CheckAttention(const Device& device, const AttentionArgs& args) {
  constexpr std::string_view kOp = "Attention";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "queries", args.queries, kFloat32,
                                {kAnySize, kAnySize, kAnySize}));
  const int64_t n_queries = args.queries.dim(0);
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  RETURN_IF_ERROR(CheckArgument(device, kOp, "keys", args.keys, kFloat32OrBFloat16,
                                {kAnySize, kAnySize, head_dim}, Layout::kDenseRows));
  const int64_t n_kv_heads = args.keys.dim(1);
  if (head_dim < 1 || n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": queries ", args.queries.ShapeText(), " and keys ", args.keys.ShapeText(),
               ": want dimensions, and a multiple of the keys' heads"));
  }
  RETURN_IF_ERROR(CheckArgument(device, kOp, "values", args.values, OfType(args.keys.dtype()),
                                {args.keys.dim(0), n_kv_heads, head_dim}, Layout::kDenseRows));
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "output", args.output, kFloat32, {n_queries, n_heads, head_dim}));
  if (!args.sequence_begins.empty()) {
    if (args.keys.dim(0) != n_queries) {
      return absl::InvalidArgumentError(StrCat(kOp, ": ", n_queries, " queries and ",
                                               args.keys.dim(0),
                                               " keys: want as many of both for sequences"));
    }
    RETURN_IF_ERROR(CheckSequences(kOp, args.sequence_begins, n_queries));
  }
  if (args.lse.is_none()) return absl::OkStatus();
  return CheckArgument(device, kOp, "lse", args.lse, kFloat32, {n_queries, n_heads});
}

// The sequences of `args`, each by itself.
void AddSequences(const AttentionArgs& args, std::vector<AttentionArgs>* sequences) {
  const int64_t whole[] = {0, args.queries.dim(0)};
  const bool is_one = args.sequence_begins.empty();
  const std::span<const int64_t> begins = is_one ? std::span(whole) : args.sequence_begins;
  for (size_t s = 0; s + 1 < begins.size(); ++s) {
    const int64_t n = begins[s + 1] - begins[s];
    if (n == 0) continue;
    AttentionArgs& sequence = sequences->emplace_back(args);
    if (is_one) return;
    sequence.sequence_begins = {};
    sequence.queries = args.queries.Rows(begins[s], n);
    sequence.keys = args.keys.Rows(begins[s], n);
    sequence.values = args.values.Rows(begins[s], n);
    sequence.output = args.output.Rows(begins[s], n);
    if (!args.lse.is_none()) sequence.lse = args.lse.Rows(begins[s], n);
  }
}

}  // namespace

absl::Status Attention(Device& device, const AttentionArgs& args) {
  return AttentionTogether(device, {&args, 1});
}

absl::Status AttentionTogether(Device& device, std::span<const AttentionArgs> attentions) {
  for (const AttentionArgs& args : attentions) RETURN_IF_ERROR(CheckAttention(device, args));
  const DeviceScope scope(device);
  if (device.kind() == DeviceKind::kCuda) {
    for (const AttentionArgs& args : attentions) {
      if (args.queries.dim(0) > 0) RETURN_IF_ERROR(cuda::Attention(device, args));
    }
    return absl::OkStatus();
  }
  std::vector<AttentionArgs> sequences;
  for (const AttentionArgs& args : attentions) AddSequences(args, &sequences);
  if (sequences.empty()) return absl::OkStatus();
  return cpu::AttentionTogether(cpu::AsCpu(device), sequences);
}

absl::Status MergePartials(Device& device, const MergePartialsArgs& args) {
  constexpr std::string_view kOp = "MergePartials";
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "output", args.output, kFloat32, {kAnySize, kAnySize, kAnySize}));
  const int64_t n_queries = args.output.dim(0);
  const int64_t n_heads = args.output.dim(1);
  RETURN_IF_ERROR(CheckArgument(device, kOp, "lse", args.lse, kFloat32, {n_queries, n_heads}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "other_output", args.other_output, kFloat32,
                                {n_queries, n_heads, args.output.dim(2)}));
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "other_lse", args.other_lse, kFloat32, {n_queries, n_heads}));
  if (args.output.size() == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::MergePartials(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::MergePartials(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
