#include "train/losses.h"

#include <algorithm>
#include <cmath>

namespace fovea::train {

using torch::Tensor;

Tensor NextTokenLoss(const TrainableModel& model, const Tensor& hidden, const Tensor& targets,
                     const Tensor& weights) {
  const Tensor counts = targets.ne(-100);
  const Tensor where = counts.nonzero();  // [n, 2]
  if (where.size(0) == 0) return hidden.sum().to(torch::kFloat32) * 0.0;
  const Tensor entry = where.select(1, 0);
  const Tensor token = where.select(1, 1);
  const Tensor chosen = hidden.index({entry, token});
  const Tensor losses = torch::nn::functional::cross_entropy(
      model.Logits(chosen).to(torch::kFloat32), targets.index({entry, token}),
      torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone));
  if (!weights.defined()) return losses.mean();
  const Tensor of_each = weights.index_select(0, entry);
  return (losses * of_each).sum() / of_each.sum().clamp_min(1e-12);
}

MassProbe MassLoss::Probe(double score_scale) {
  return [this, score_scale](size_t memory_layer, const Tensor& queries, const Tensor& keys) {
    const auto layer = static_cast<int64_t>(memory_layer);
    if (std::find(memory_layers_.begin(), memory_layers_.end(), layer) == memory_layers_.end()) {
      return;
    }
    Observe(queries, keys, score_scale);
  };
}

void MassLoss::Observe(const Tensor& queries, const Tensor& keys, double scale) {
  if (asks_.empty()) return;
  std::vector<int64_t> entries, positions, begins, ends;
  for (const Ask& ask : asks_) {
    entries.push_back(ask.entry);
    positions.push_back(ask.position);
    begins.push_back(ask.memory_begin);
    ends.push_back(ask.memory_end);
  }
  const auto device = queries.device();
  const auto on_device = [&](const std::vector<int64_t>& numbers) {
    return torch::tensor(numbers, torch::kInt64).to(device);
  };
  const Tensor entry = on_device(entries);
  const int64_t n_asks = entry.size(0);
  const int64_t n_heads = queries.size(1);
  const int64_t n_kv_heads = keys.size(1);
  const int64_t n_memory = keys.size(2);
  // Asks of an entry share its keys: one product for the asks of all, padded to the most of any.
  std::vector<int64_t> rank(asks_.size());
  std::vector<int64_t> n_of_entry(static_cast<size_t>(queries.size(0)), 0);
  for (size_t i = 0; i < asks_.size(); ++i) {
    rank[i] = n_of_entry[static_cast<size_t>(entries[i])]++;
  }
  const int64_t most = *std::max_element(n_of_entry.begin(), n_of_entry.end());
  const Tensor place = on_device(rank);
  const Tensor asked = queries.transpose(1, 2).index({entry, on_device(positions)});  // [n, h, dim]
  Tensor padded =
      torch::zeros({queries.size(0), most, n_heads, queries.size(3)}, queries.options());
  padded = padded.index_put({entry, place}, asked);
  const Tensor grouped = padded.transpose(1, 2).reshape(
      {queries.size(0), n_kv_heads, n_heads / n_kv_heads * most, queries.size(3)});
  const Tensor scores = (grouped.matmul(keys.transpose(-1, -2)).to(torch::kFloat32) * scale)
                            .view({queries.size(0), n_heads, most, n_memory});
  const Tensor of_asks = scores.transpose(1, 2).index({entry, place});  // [n, h, n_memory]
  const Tensor token = torch::arange(n_memory, torch::kInt64).to(device).unsqueeze(0);
  const Tensor own = token.ge(on_device(begins).unsqueeze(1))
                         .logical_and(token.lt(on_device(ends).unsqueeze(1)))
                         .unsqueeze(1);
  const Tensor share = of_asks.masked_fill(own.logical_not(), -1e30).logsumexp(-1) -
                       of_asks.logsumexp(-1);  // [n, h]
  const Tensor mean = share.logsumexp(-1) - std::log(static_cast<double>(n_heads));
  losses_.push_back(-mean.sum() / static_cast<double>(n_asks));
  masses_.push_back(mean.detach().exp().mean());
}

Tensor MassLoss::Mean() const { return losses_.empty() ? Tensor() : torch::stack(losses_).mean(); }

std::vector<double> MassLoss::MeanMass() const {
  std::vector<double> masses;
  for (const Tensor& mass : masses_) masses.push_back(mass.item<double>());
  return masses;
}

}  // namespace fovea::train
