#include "train/memory_attention.h"

#include <cmath>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

namespace fovea::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// Its kernels are of 16 bits, and of head sizes in steps of 8.
bool HasFlash(const Tensor& queries) {
  return queries.is_cuda() && queries.scalar_type() != torch::kFloat32 &&
         queries.size(3) % 8 == 0 && queries.size(3) <= 256;
}

double ScoreScale(const Tensor& queries) {
  return 1.0 / std::sqrt(static_cast<double>(queries.size(3)));
}

// Causal at the end of the keys: what stands before the last n_tokens of them is seen by all.
Tensor AttendTo(const Tensor& queries, const Tensor& keys, const Tensor& values) {
  const double scale = ScoreScale(queries);
  if (HasFlash(queries)) {
    return std::get<0>(at::_scaled_dot_product_flash_attention(
        queries, keys, values, /*dropout_p=*/0.0, /*is_causal=*/true,
        /*return_debug_mask=*/false, scale));
  }
  const int64_t n_tokens = queries.size(2);
  const int64_t n_memory = keys.size(2) - n_tokens;
  const Tensor mask = torch::ones({n_tokens, n_memory + n_tokens},
                                  torch::TensorOptions(torch::kBool).device(queries.device()))
                          .tril(n_memory);
  return at::scaled_dot_product_attention(queries, keys, values, mask, /*dropout_p=*/0.0,
                                          /*is_causal=*/false, scale, /*enable_gqa=*/true);
}

// One part of an attention, as flash attention gives it and takes it back.
struct Part {
  Tensor queries, keys, values;
  bool is_causal = false;
  Tensor output, lse;  // lse: float32 [n, n_heads, n_tokens]
  Tensor cumulative_queries, cumulative_keys, state, unused;
  c10::SymInt max_queries, max_keys;

  void Attend() {
    Tensor debug;
    std::tie(output, lse, cumulative_queries, cumulative_keys, max_queries, max_keys, state, unused,
             debug) = at::_scaled_dot_product_flash_attention(queries, keys, values, 0.0, is_causal,
                                                              false, ScoreScale(queries));
  }
  // By the output and log-sum-exp of the whole attention: the gradient of each part needs nothing
  // else of the others.
  std::tuple<Tensor, Tensor, Tensor> Gradients(const Tensor& gradient, const Tensor& whole,
                                               const Tensor& whole_lse) const {
    return at::_scaled_dot_product_flash_attention_backward_symint(
        gradient, queries, keys, values, whole, whole_lse, cumulative_queries, cumulative_keys,
        max_queries, max_keys, 0.0, is_causal, state, unused, ScoreScale(queries));
  }
};

// Entry i sees contexts i, i + 1, …, i + d − 1 of as many contexts as there are entries, counted
// round. Which of them come first does not matter to a softmax.
class RingAttention : public torch::autograd::Function<RingAttention> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& queries, const Tensor& keys,
                        const Tensor& values, const Tensor& context_keys,
                        const Tensor& context_values, int64_t d) {
    Part memory = MemoryPart(queries, context_keys, context_values, d);
    Part local = LocalPart(queries, keys, values);
    memory.Attend();
    local.Attend();
    const int64_t n = queries.size(0);
    const Tensor memory_lse = ByEntry(memory.lse, n, d);
    // In order: flash attention reads it as it lies.
    const Tensor lse = torch::logaddexp(memory_lse, local.lse).contiguous();
    const auto share = [&](const Tensor& of) { return (of - lse).exp().unsqueeze(3); };
    const Tensor output = (ByEntry(memory.output, n, d).to(torch::kFloat32) * share(memory_lse) +
                           local.output.to(torch::kFloat32) * share(local.lse))
                              .to(queries.scalar_type());
    context->save_for_backward({queries, keys, values, context_keys, context_values, output, lse});
    context->saved_data["d"] = d;
    // What flash attention wants back beside them is the same for all calls of a shape.
    context->saved_data["memory_state"] = memory.state;
    context->saved_data["memory_unused"] = memory.unused;
    context->saved_data["local_state"] = local.state;
    context->saved_data["local_unused"] = local.unused;
    return output;
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor& queries = saved[0];
    const Tensor& output = saved[5];
    const Tensor& lse = saved[6];
    const int64_t d = context->saved_data["d"].toInt();
    const int64_t n = queries.size(0);
    Part memory = MemoryPart(queries, saved[3], saved[4], d);
    Part local = LocalPart(queries, saved[1], saved[2]);
    memory.state = context->saved_data["memory_state"].toTensor();
    memory.unused = context->saved_data["memory_unused"].toTensor();
    local.state = context->saved_data["local_state"].toTensor();
    local.unused = context->saved_data["local_unused"].toTensor();
    for (Part* part : {&memory, &local}) {
      part->max_queries = part->queries.size(2);
      part->max_keys = part->keys.size(2);
    }
    const auto [local_q, local_k, local_v] = local.Gradients(gradients[0], output, lse);
    const auto [memory_q, memory_k, memory_v] = memory.Gradients(
        Together(gradients[0], n, d), Together(output, n, d), Together(lse, n, d).contiguous());
    return {local_q + ByEntry(memory_q, n, d), local_k, local_v, OfContexts(memory_k, n, d),
            OfContexts(memory_v, n, d),        Tensor()};
  }

 private:
  static Part LocalPart(const Tensor& queries, const Tensor& keys, const Tensor& values) {
    Part part;
    part.queries = queries;
    part.keys = keys;
    part.values = values;
    part.is_causal = true;
    return part;
  }
  static Part MemoryPart(const Tensor& queries, const Tensor& context_keys,
                         const Tensor& context_values, int64_t d) {
    Part part;
    part.queries = Together(queries, queries.size(0), d);
    part.keys = Rings(context_keys, d);
    part.values = Rings(context_values, d);
    return part;
  }

  // Where all see everything, entries are one long sequence: [n, h, t, …] → [1, h, n·t, …].
  static Tensor Together(const Tensor& x, int64_t n, int64_t d) {
    return d < n ? x : x.transpose(0, 1).flatten(1, 2).unsqueeze(0);
  }
  static Tensor ByEntry(const Tensor& x, int64_t n, int64_t d) {
    return d < n ? x : x.squeeze(0).unflatten(1, {n, -1}).transpose(0, 1);
  }

  // [n, kv, t, dim] → [n, kv, d·t, dim] whose entries overlap, or [1, kv, n·t, dim].
  static Tensor Rings(const Tensor& x, int64_t d) {
    const int64_t n = x.size(0), kv = x.size(1), t = x.size(2), dim = x.size(3);
    const Tensor row = x.transpose(0, 1);
    if (d == n) return row.reshape({1, kv, n * t, dim});
    const int64_t length = (n + d - 1) * t;
    const Tensor line = torch::cat({row, row.slice(1, 0, d - 1)}, 1).reshape({kv, length, dim});
    return line.as_strided({n, kv, d * t, dim}, {t * dim, length * dim, dim, 1});
  }
  // Gradients of what Rings gave: a context's are those of all who saw it, added up in float32.
  static Tensor OfContexts(const Tensor& x, int64_t n, int64_t d) {
    if (d == n) return x.squeeze(0).unflatten(1, {n, -1}).transpose(0, 1).contiguous();
    const Tensor parts = x.unflatten(2, {d, -1});  // [n, kv, d, t, dim]
    Tensor sum = parts.select(2, 0).to(torch::kFloat32, false, true);
    for (int64_t j = 1; j < d; ++j) {
      // Entry i's j-th is context i + j.
      const Tensor part = parts.select(2, j);
      sum.slice(0, j).add_(part.slice(0, 0, n - j));
      sum.slice(0, 0, j).add_(part.slice(0, n - j));
    }
    return sum.to(x.scalar_type());
  }
};

bool IsRing(const SeenContexts& seen, int64_t n_contexts) {
  const auto n = static_cast<int64_t>(seen.size());
  if (n != n_contexts || seen[0].empty()) return false;
  for (int64_t i = 0; i < n; ++i) {
    const std::vector<int64_t>& of_entry = seen[static_cast<size_t>(i)];
    if (of_entry.size() != seen[0].size()) return false;
    for (size_t j = 0; j < of_entry.size(); ++j) {
      if (of_entry[j] != (i + static_cast<int64_t>(j)) % n) return false;
    }
  }
  return true;
}

}  // namespace

Tensor AttendWithMemory(const MemoryAttentionArgs& args) {
  const Tensor& queries = args.queries;
  if (args.seen == nullptr) return AttendTo(queries, args.keys, args.values);
  const SeenContexts& seen = *args.seen;
  if (HasFlash(queries) && IsRing(seen, args.context_keys.size(0))) {
    return RingAttention::apply(queries, args.keys, args.values, args.context_keys,
                                args.context_values, static_cast<int64_t>(seen[0].size()));
  }
  // Entries that see equally many contexts together.
  std::map<size_t, std::vector<int64_t>> by_number;
  for (size_t i = 0; i < seen.size(); ++i) {
    by_number[seen[i].size()].push_back(static_cast<int64_t>(i));
  }
  std::vector<Tensor> outputs;
  std::vector<int64_t> order;
  for (const auto& [n_contexts, rows] : by_number) {
    order.insert(order.end(), rows.begin(), rows.end());
    const bool is_all = rows.size() == seen.size();
    const auto index = torch::tensor(rows, torch::kInt64).to(queries.device());
    const auto take = [&](const Tensor& x) { return is_all ? x : x.index_select(0, index); };
    Tensor keys = take(args.keys);
    Tensor values = take(args.values);
    if (n_contexts > 0) {
      std::vector<int64_t> contexts;
      for (const int64_t row : rows) {
        const auto& of_row = seen[static_cast<size_t>(row)];
        contexts.insert(contexts.end(), of_row.begin(), of_row.end());
      }
      const auto which = torch::tensor(contexts, torch::kInt64).to(queries.device());
      const auto in_front = [&](const Tensor& from, const Tensor& local) {
        // [rows · contexts, kv, tokens, dim] → [rows, kv, contexts · tokens, dim]
        const Tensor taken = from.index_select(0, which)
                                 .unflatten(0, {static_cast<int64_t>(rows.size()), -1})
                                 .transpose(1, 2)
                                 .flatten(2, 3);
        return torch::cat({taken, local}, 2);
      };
      keys = in_front(args.context_keys, keys);
      values = in_front(args.context_values, values);
    }
    outputs.push_back(AttendTo(take(queries), keys, values));
  }
  if (outputs.size() == 1) return outputs[0];
  std::vector<int64_t> place(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    place[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  }
  return torch::cat(outputs, 0)
      .index_select(0, torch::tensor(place, torch::kInt64).to(queries.device()));
}

}  // namespace fovea::train
