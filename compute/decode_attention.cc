#include "compute/decode_attention.h"

#include "compute/attention.h"
#include "compute/check_argument.h"
#include "compute/convert.h"
#include "compute/cuda/ops.h"
#include "compute/rope.h"

namespace fovea::compute {
namespace {

constexpr std::string_view kOp = "DecodeAttention";

// On a CPU: the ops that it consists of.
absl::Status InParts(Device& device, const DecodeAttentionArgs& args) {
  const int64_t n_heads = args.query.dim(0);
  const int64_t n_kv_heads = args.keys.dim(1);
  const int64_t head_dim = args.query.dim(1);
  const TokenPlace place = *args.place;
  if (place.row < 0 || place.row >= args.keys.dim(0)) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": row ", place.row, ", the room has ", args.keys.dim(0)));
  }
  const ConstView query(args.query.As<float>(), {1, n_heads, head_dim});
  const View rotated(args.rotated.As<float>(), {1, n_heads, head_dim});
  const View key(args.key.As<float>(), {1, n_kv_heads, head_dim});
  const ConstView value(args.value.As<float>(), {1, n_kv_heads, head_dim});
  RETURN_IF_ERROR(Convert(device, {.from = query, .to = rotated}));
  for (const View& x : {rotated, key}) {
    if (args.inverse_frequencies.is_none()) break;
    RETURN_IF_ERROR(Rope(device, {.x = x,
                                  .inverse_frequencies = args.inverse_frequencies,
                                  .first_position = place.position}));
  }
  RETURN_IF_ERROR(Convert(device, {.from = key, .to = args.keys.Rows(place.row, 1)}));
  RETURN_IF_ERROR(Convert(device, {.from = value, .to = args.values.Rows(place.row, 1)}));
  return Attention(device,
                   {.queries = rotated,
                    .keys = args.keys.Rows(0, place.row + 1),
                    .values = args.values.Rows(0, place.row + 1),
                    .scale = args.scale,
                    .output = {args.output.As<float>(), {1, n_heads, head_dim}},
                    .lse = args.lse.is_none() ? View() : View(args.lse.As<float>(), {1, n_heads})});
}

}  // namespace

absl::Status DecodeAttention(Device& device, const DecodeAttentionArgs& args) {
  RETURN_IF_ERROR(CheckArgument(device, kOp, "query", args.query, kFloat32, {kAnySize, kAnySize}));
  const int64_t n_heads = args.query.dim(0);
  const int64_t head_dim = args.query.dim(1);
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "rotated", args.rotated, kFloat32, {n_heads, head_dim}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "output", args.output, kFloat32, {n_heads, head_dim}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "keys", args.keys, kFloat32OrBFloat16,
                                {kAnySize, kAnySize, head_dim}));
  const int64_t n_kv_heads = args.keys.dim(1);
  RETURN_IF_ERROR(CheckArgument(device, kOp, "values", args.values, OfType(args.keys.dtype()),
                                {args.keys.dim(0), n_kv_heads, head_dim}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "key", args.key, kFloat32, {n_kv_heads, head_dim}));
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "value", args.value, kFloat32, {n_kv_heads, head_dim}));
  if (!args.inverse_frequencies.is_none()) {
    RETURN_IF_ERROR(CheckArgument(device, kOp, "inverse_frequencies", args.inverse_frequencies,
                                  kFloat32, {head_dim / 2}));
  }
  if (!args.lse.is_none()) {
    RETURN_IF_ERROR(CheckArgument(device, kOp, "lse", args.lse, kFloat32, {n_heads}));
  }
  if (n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0 || head_dim % 2 != 0 ||
      head_dim < 2 || head_dim > kMaxDecodeHeadDim) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": query ", args.query.ShapeText(), " and keys ", args.keys.ShapeText(),
               ": want a multiple of the keys' heads, and an even dimension of at most ",
               kMaxDecodeHeadDim));
  }
  if (!device.MayOwn(args.place)) {
    return absl::InvalidArgumentError(StrCat(kOp, ": place is not in memory of the device"));
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return InParts(device, args);
    case DeviceKind::kCuda:
      return cuda::DecodeAttention(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
