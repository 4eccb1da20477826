#include "compute/coded_memory_attention.h"

#include <vector>

#include "compute/cpu/code_scan.h"
#include "compute/cpu/memory_attention.h"
#include "compute/cpu/ops.h"

namespace fovea::compute::cpu {
namespace {

// The best estimates of a part, scored again by the stored keys.
void ScanCodes(CpuDevice& device, const CodedMemoryAttentionArgs& args, const CodedMemoryPart& part,
               int64_t first_position, std::vector<TopK>* kept) {
  const int64_t n_keys = part.entries.keys.dim(1);
  if (n_keys == 0) return;
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  const int64_t group = n_heads / static_cast<int64_t>(kept->size());
  const KeyCoder coder(part.codes.bits, head_dim);
  std::vector<CodedKeys> heads;
  for (int64_t h = 0; h < static_cast<int64_t>(kept->size()); ++h) {
    heads.push_back({part.codes.codes + h * coder.code_bytes(n_keys),
                     part.codes.factors + h * coder.n_factors(n_keys), n_keys});
  }
  const int64_t n_rows = args.queries.dim(0) * n_heads;
  std::vector<int64_t> found(static_cast<size_t>(n_rows * args.n_candidates));
  CodeScan(device,
           {.coder = &coder,
            .heads = heads,
            .queries = args.queries,
            .n_candidates = args.n_candidates,
            .allowed = part.entries.allowed},
           found.data());
  for (int64_t row = 0; row < n_rows; ++row) {
    const int64_t kv_head = row % n_heads / group;
    const EntryPointer keys = KeysOf(part.entries, kv_head);
    const float* const query = args.queries.As<float>() + row * head_dim;
    for (int64_t j = 0; j < args.n_candidates; ++j) {
      const int64_t key = found[static_cast<size_t>(row * args.n_candidates + j)];
      if (key < 0) continue;
      (*kept)[static_cast<size_t>(kv_head)].Push(
          row / n_heads * group + row % group,
          {KeyScore(query, keys + key * head_dim, head_dim), first_position + key});
    }
  }
}

// What an index of a part found, scored by the stored keys.
void ScoreFound(const CodedMemoryAttentionArgs& args, const CodedMemoryPart& part,
                int64_t first_position, std::vector<TopK>* kept) {
  const int64_t n_tokens = part.entries.keys.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  const int64_t n_found = part.found.n_found;
  const auto n_kv_heads = static_cast<int64_t>(kept->size());
  const int64_t group = args.queries.dim(1) / n_kv_heads;
  const int64_t n_lists = args.queries.dim(0) * group;
  for (int64_t kv_head = 0; kv_head < n_kv_heads && n_tokens > 0; ++kv_head) {
    const EntryPointer keys = KeysOf(part.entries, kv_head);
    for (int64_t list = 0; list < n_lists; ++list) {
      const int64_t head = kv_head * group + list % group;
      const float* const query =
          args.queries.As<float>() + (list / group * args.queries.dim(1) + head) * head_dim;
      for (int64_t j = 0; j < n_found; ++j) {
        const int64_t key = part.found.keys[(kv_head * n_lists + list) * n_found + j];
        if (key < 0) continue;
        const int64_t token = part.found.tokens != nullptr ? part.found.tokens[key] : key;
        if (token < 0 || token >= n_tokens) continue;
        const uint64_t* const allowed = part.entries.allowed;
        if (allowed != nullptr && (allowed[token / 64] >> (token % 64) & 1) == 0) continue;
        (*kept)[static_cast<size_t>(kv_head)].Push(
            list, {KeyScore(query, keys + token * head_dim, head_dim), first_position + token});
      }
    }
  }
}

}  // namespace

absl::Status CodedMemoryAttention(CpuDevice& device, const CodedMemoryAttentionArgs& args) {
  const int64_t n_kv_heads = args.parts[0].entries.keys.dim(0);
  const int64_t n_rows = args.queries.dim(0) * (args.queries.dim(1) / n_kv_heads);
  std::vector<TopK> kept(static_cast<size_t>(n_kv_heads), TopK(n_rows, args.top_k));
  std::vector<MemoryPart> entries;
  int64_t first_position = 0;
  for (const CodedMemoryPart& part : args.parts) {
    entries.push_back(part.entries);
    if (part.found.n_found > 0) {
      ScoreFound(args, part, first_position, &kept);
    } else if (part.codes.bits == 0) {
      RETURN_IF_ERROR(ScanPart(device, args.queries, part.entries, first_position, &kept));
    } else {
      ScanCodes(device, args, part, first_position, &kept);
    }
    first_position += part.entries.keys.dim(1);
  }
  AttendToKept(device,
               {.queries = args.queries,
                .parts = entries,
                .top_k = args.top_k,
                .scale = args.scale,
                .output = args.output,
                .lse = args.lse,
                .positions = args.positions,
                .scores = args.scores},
               &kept);
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
