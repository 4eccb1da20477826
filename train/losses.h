// What training minimises.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "train/torch.h"
#include "train/trainable_model.h"

namespace fovea::train {

// Cross-entropy of next tokens, natural logarithm. `targets`: int64 [n_entries, n_tokens], the id
// that is to follow each token, −100: none counts. `weights` (may be undefined): float32
// [n_entries], of the targets of an entry. Both lie in main memory. The weighted mean; 0 where
// nothing counts.
torch::Tensor NextTokenLoss(const TrainableModel& model, const torch::Tensor& hidden,
                            const torch::Tensor& targets, const torch::Tensor& weights);

// The share of these targets whose token is the likeliest; 0 where nothing counts. A scalar on the
// model's device.
torch::Tensor NextTokenAccuracy(const TrainableModel& model, const torch::Tensor& hidden,
                                const torch::Tensor& targets);

// A token of an entry's sequence, and the one of the teacher's sequence that knows as much of the
// same answer.
struct Taught {
  int64_t entry = 0;
  int64_t position = 0;
  int64_t teacher_position = 0;
};

// Distillation (Hinton et al. 2015, temperature 1): the mean Kullback-Leibler divergence of the
// next token's distributions, of the teacher's from the model's. Hidden states [n_entries,
// n_tokens, hidden_size]; `teacher` gets no gradient. Of more than `most` tokens the first are
// taken: each has a distribution over the whole vocabulary. `taught` is not empty.
torch::Tensor DistillationLoss(const TrainableModel& model, const torch::Tensor& hidden,
                               const torch::Tensor& teacher, const std::vector<Taught>& taught,
                               int64_t most = 2048);

// A token that asks for what stands in a stretch of its entry's memory: the last one of a question.
struct Ask {
  int64_t entry = 0;
  int64_t position = 0;  // of the token in the entry
  // [begin, end) of the memory's tokens, in the order that its contexts are seen in; within one.
  int64_t memory_begin = 0;
  int64_t memory_end = 0;
};

// The contrastive loss on attention mass: −log of the share of the memory's attention mass that
// asks give to their own stretch, its mean over heads inside of the logarithm; the mean over asks
// and over the layers that are observed. (InfoNCE, van den Oord et al. 2018, whose scores are what
// a softmax over all keys of a stretch adds up to.) Observe it in Forward as a MassProbe.
class MassLoss {
 public:
  // `memory_layers`: indices among the memory layers.
  MassLoss(std::vector<Ask> asks, std::vector<int64_t> memory_layers)
      : asks_(std::move(asks)), memory_layers_(std::move(memory_layers)) {}

  MassProbe Probe(double score_scale);
  // Undefined where nothing was observed.
  torch::Tensor Mean() const;
  // The mean share itself, by observed layer: r_d of the paper's section 3.2 where a stretch is a
  // whole context.
  std::vector<double> MeanMass() const;

 private:
  void Observe(const torch::Tensor& queries, const torch::Tensor& context_keys,
               const SeenContexts& seen, double scale);

  const std::vector<Ask> asks_;
  const std::vector<int64_t> memory_layers_;
  std::vector<torch::Tensor> losses_;
  std::vector<torch::Tensor> masses_;
};

}  // namespace fovea::train
