#include "compute/check_memory_parts.h"

#include <limits>

#include "compute/check_argument.h"

namespace fovea::compute {

absl::Status CheckMemoryQueries(const Device& device, std::string_view op, const ConstView& queries,
                                const View& output, const View& lse, int top_k, bool has_kept) {
  RETURN_IF_ERROR(
      CheckArgument(device, op, "queries", queries, kFloat32, {kAnySize, kAnySize, kAnySize}));
  const int64_t n_queries = queries.dim(0);
  const int64_t n_heads = queries.dim(1);
  if (!output.is_none() || !has_kept) {
    RETURN_IF_ERROR(CheckArgument(device, op, "output", output, kFloat32,
                                  {n_queries, n_heads, queries.dim(2)}));
  }
  RETURN_IF_ERROR(CheckArgument(device, op, "lse", lse, kFloat32, {n_queries, n_heads}));
  if (top_k < 1 || top_k > kMaxMemoryTopK) {
    return absl::InvalidArgumentError(StrCat(op, ": top_k ", top_k, ", want 1 … ", kMaxMemoryTopK));
  }
  return absl::OkStatus();
}

absl::Status CheckMemoryPart(const Device& device, std::string_view op, const ConstView& queries,
                             const MemoryPart& first, const MemoryPart& part, bool wants_values,
                             int64_t* n_tokens) {
  const int64_t n_heads = queries.dim(1);
  const int64_t head_dim = queries.dim(2);
  RETURN_IF_ERROR(CheckArgument(device, op, "keys", part.keys,
                                &part == &first ? kFloat32OrBFloat16 : OfType(first.keys.dtype()),
                                {kAnySize, kAnySize, head_dim}, Layout::kDenseRows,
                                Place::kReadable));
  const int64_t n_kv_heads = part.keys.dim(0);
  if (n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0 ||
      n_kv_heads != first.keys.dim(0)) {
    return absl::InvalidArgumentError(StrCat(op, ": queries ", queries.ShapeText(), " and keys ",
                                             part.keys.ShapeText(),
                                             ": want a multiple of the keys' heads, and as many "
                                             "in each part"));
  }
  if (wants_values || !part.values.is_none()) {
    RETURN_IF_ERROR(CheckArgument(device, op, "values", part.values, OfType(first.keys.dtype()),
                                  {n_kv_heads, part.keys.dim(1), head_dim}, Layout::kDenseRows,
                                  Place::kReadable));
  }
  for (const ConstView& entries : {part.keys, part.values}) {
    if (entries.is_none() || entries.stride(1) == head_dim || entries.dim(1) <= 1) continue;
    return absl::InvalidArgumentError(StrCat(op, ": tokens of a head lie ", entries.stride(1),
                                             " elements apart, want ", head_dim));
  }
  *n_tokens += part.keys.dim(1);
  if (*n_tokens > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        StrCat(op, ": ", *n_tokens, " tokens, want at most ", std::numeric_limits<int32_t>::max()));
  }
  return absl::OkStatus();
}

absl::Status CheckNumMemoryParts(std::string_view op, size_t n_parts) {
  if (n_parts >= 1 && n_parts <= static_cast<size_t>(kMaxMemoryParts)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat(op, ": ", n_parts, " parts, want 1 … ", kMaxMemoryParts));
}

}  // namespace fovea::compute
