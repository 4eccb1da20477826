#include "train/losses.h"

#include <algorithm>
#include <cmath>

namespace fovea::train {

using torch::Tensor;

Tensor NextTokenLoss(const TrainableModel& model, const Tensor& hidden, const Tensor& targets,
                     const Tensor& weights) {
  // Found where they lie, in main memory: a GPU would be waited for.
  const Tensor where = targets.flatten().ne(-100).nonzero().flatten();
  if (where.size(0) == 0) return hidden.sum().to(torch::kFloat32) * 0.0;
  const auto device = hidden.device();
  const Tensor chosen = hidden.flatten(0, 1).index_select(0, where.to(device));
  const Tensor losses = torch::nn::functional::cross_entropy(
      model.Logits(chosen).to(torch::kFloat32), targets.flatten().index_select(0, where).to(device),
      torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone));
  if (!weights.defined()) return losses.mean();
  const Tensor of_each = weights.index_select(0, where.div(targets.size(1), "floor")).to(device);
  return (losses * of_each).sum() / of_each.sum().clamp_min(1e-12);
}

Tensor NextTokenAccuracy(const TrainableModel& model, const Tensor& hidden, const Tensor& targets) {
  torch::NoGradGuard guard;
  const Tensor where = targets.flatten().ne(-100).nonzero().flatten();
  if (where.size(0) == 0) return torch::zeros({}, torch::kFloat32);
  const auto device = hidden.device();
  const Tensor said =
      model.Logits(hidden.detach().flatten(0, 1).index_select(0, where.to(device))).argmax(-1);
  const Tensor wanted = targets.flatten().index_select(0, where).to(device);
  return said.eq(wanted).to(torch::kFloat32).mean();
}

Tensor DistillationLoss(const TrainableModel& model, const Tensor& hidden, const Tensor& teacher,
                        const std::vector<Taught>& taught, int64_t most) {
  std::vector<int64_t> of_student, of_teacher;  // rows
  for (const Taught& token : taught) {
    if (static_cast<int64_t>(of_student.size()) == most) break;
    of_student.push_back(token.entry * hidden.size(1) + token.position);
    of_teacher.push_back(token.entry * teacher.size(1) + token.teacher_position);
  }
  const auto log_probabilities = [&](const Tensor& states, const std::vector<int64_t>& rows) {
    const Tensor chosen = states.flatten(0, 1).index_select(
        0, torch::tensor(rows, torch::kInt64).to(states.device()));
    return torch::log_softmax(model.Logits(chosen).to(torch::kFloat32), -1);
  };
  Tensor wanted;
  {
    torch::NoGradGuard guard;
    wanted = log_probabilities(teacher.detach(), of_teacher);
  }
  return (wanted.exp() * (wanted - log_probabilities(hidden, of_student))).sum(-1).mean();
}

MassProbe MassLoss::Probe(double score_scale) {
  return [this, score_scale](size_t memory_layer, const Tensor& queries, const Tensor& context_keys,
                             const SeenContexts& seen) {
    const auto layer = static_cast<int64_t>(memory_layer);
    if (std::find(memory_layers_.begin(), memory_layers_.end(), layer) == memory_layers_.end()) {
      return;
    }
    Observe(queries, context_keys, seen, score_scale);
  };
}

// Scores of all contexts for all asks, as one product a KV head; what an entry does not see is left
// out of its sums.
void MassLoss::Observe(const Tensor& queries, const Tensor& context_keys, const SeenContexts& seen,
                       double scale) {
  if (asks_.empty()) return;
  const int64_t n_asks = static_cast<int64_t>(asks_.size());
  const int64_t n_heads = queries.size(1);
  const int64_t n_contexts = context_keys.size(0);
  const int64_t n_kv_heads = context_keys.size(1);
  const int64_t n_context_tokens = context_keys.size(2);
  const int64_t dim = context_keys.size(3);
  std::vector<int64_t> entries, positions, begins, ends;
  Tensor is_seen = torch::zeros({n_asks, n_contexts}, torch::kBool);
  for (int64_t i = 0; i < n_asks; ++i) {
    const Ask& ask = asks_[static_cast<size_t>(i)];
    const std::vector<int64_t>& contexts = seen[static_cast<size_t>(ask.entry)];
    entries.push_back(ask.entry);
    positions.push_back(ask.position);
    const int64_t context = contexts[static_cast<size_t>(ask.memory_begin / n_context_tokens)];
    begins.push_back(context * n_context_tokens + ask.memory_begin % n_context_tokens);
    ends.push_back(begins.back() + ask.memory_end - ask.memory_begin);
    for (const int64_t c : contexts) is_seen[i][c] = true;
  }
  const auto on_device = [&](const std::vector<int64_t>& numbers) {
    return torch::tensor(numbers, torch::kInt64).to(queries.device());
  };
  const Tensor asked = queries.transpose(1, 2)
                           .index({on_device(entries), on_device(positions)})  // [asks, heads, dim]
                           .view({n_asks, n_kv_heads, n_heads / n_kv_heads, dim})
                           .permute({1, 0, 2, 3})
                           .flatten(1, 2);
  const Tensor keys = context_keys.transpose(0, 1).flatten(1, 2);  // [kv, tokens, dim]
  const Tensor scores = (asked.matmul(keys.transpose(1, 2)).to(torch::kFloat32) * scale)
                            .view({n_kv_heads, n_asks, n_heads / n_kv_heads, -1});
  const Tensor visible = is_seen.to(queries.device())
                             .unsqueeze(2)
                             .expand({n_asks, n_contexts, n_context_tokens})
                             .reshape({1, n_asks, 1, -1});
  const Tensor token =
      torch::arange(n_contexts * n_context_tokens, torch::kInt64).to(queries.device()).unsqueeze(0);
  const Tensor own = token.ge(on_device(begins).unsqueeze(1))
                         .logical_and(token.lt(on_device(ends).unsqueeze(1)))
                         .view({1, n_asks, 1, -1});
  constexpr double kNever = -1e30;
  const Tensor share = scores.masked_fill(own.logical_not(), kNever).logsumexp(-1) -
                       scores.masked_fill(visible.logical_not(), kNever).logsumexp(-1);
  // [kv, asks, heads of a kv head] → the mean over heads.
  const Tensor mean =
      share.transpose(0, 1).flatten(1).logsumexp(-1) - std::log(static_cast<double>(n_heads));
  losses_.push_back(-mean.mean());
  masses_.push_back(mean.detach().exp().mean());
}

Tensor MassLoss::Mean() const { return losses_.empty() ? Tensor() : torch::stack(losses_).mean(); }

std::vector<double> MassLoss::MeanMass() const {
  std::vector<double> masses;
  for (const Tensor& mass : masses_) masses.push_back(mass.item<double>());
  return masses;
}

}  // namespace fovea::train
