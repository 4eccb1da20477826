#include "compute/attention.h"

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

// One sequence after another.
absl::Status AttendOnCpu(cpu::CpuDevice& device, const AttentionArgs& args) {
  if (args.sequence_begins.empty()) return cpu::Attention(device, args);
  for (size_t s = 0; s + 1 < args.sequence_begins.size(); ++s) {
    const int64_t begin = args.sequence_begins[s];
    const int64_t n = args.sequence_begins[s + 1] - begin;
    if (n == 0) continue;
    AttentionArgs of_one = args;
    of_one.sequence_begins = {};
    of_one.queries = args.queries.Rows(begin, n);
    of_one.keys = args.keys.Rows(begin, n);
    of_one.values = args.values.Rows(begin, n);
    of_one.output = args.output.Rows(begin, n);
    if (!args.lse.is_none()) of_one.lse = args.lse.Rows(begin, n);
    RETURN_IF_ERROR(cpu::Attention(device, of_one));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Attention(Device& device, const AttentionArgs& args) {
  RETURN_IF_ERROR(CheckAttention(device, args));
  if (args.queries.dim(0) == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return AttendOnCpu(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::Attention(device, args);
  }
  return absl::OkStatus();
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
