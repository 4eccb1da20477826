#include "model/decode_step.h"

#include <cmath>

#include "compute/arg_max.h"
#include "compute/attention.h"
#include "compute/embedding.h"
#include "compute/qk_norm.h"

namespace fovea::model {
namespace {

using compute::Buffer;
using compute::Linear;
using compute::View;

View Row(const Buffer& buffer, int64_t width) { return {buffer.data<float>(), {1, width}}; }

}  // namespace

// Here, where a DecodeStep is known.
Workspace::Workspace() = default;
Workspace::~Workspace() = default;
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;

bool DecodeStep::Suits(const ModelWeights& weights, const compute::Device& device,
                       const LocalContext& context) {
  const int64_t head_dim = weights.config().head_dim;
  return device.CanRecord() && context.keeps_layers() && !context.keeps_entries() &&
         head_dim <= compute::kMaxDecodeHeadDim && head_dim % 2 == 0;
}

bool DecodeStep::Takes(const ModelWeights& weights, const compute::Device& device,
                       std::span<const Sequence> sequences) {
  if (sequences.size() != 1 || !Suits(weights, device, *sequences[0].context)) return false;
  const Sequence& sequence = sequences[0];
  const bool wants_next = sequence.logits != nullptr || sequence.best_id != nullptr;
  return sequence.ids.size() == 1 && wants_next &&
         (sequence.memory == nullptr || sequence.memory->place() == MemoryPlace::kDevice);
}

absl::Status DecodeStep::Run(const ModelWeights& weights, compute::Device& device,
                             const Sequence& sequence, Workspace* workspace) {
  const ModelConfig& c = weights.config();
  LocalContext& context = *sequence.context;
  const int64_t past = context.n_tokens();
  const int32_t id = sequence.ids[0];
  RETURN_IF_ERROR(context.CheckRoom(c, 1));
  RETURN_IF_ERROR(compute::CheckTokenId(id, c.vocab_size, 0));
  RETURN_IF_ERROR(context.Reserve(device, c, weights.memory(), past + 1));
  if (workspace->step == nullptr) workspace->step = std::make_unique<DecodeStep>();
  DecodeStep& step = *workspace->step;
  Key key{.weights = &weights,
          .memory = sequence.memory,
          .context = &context,
          .room_id = context.room_id(),
          .wants_best = sequence.best_id != nullptr};
  if (sequence.memory != nullptr) RETURN_IF_ERROR(sequence.memory->BeginStep(&key.memory_id));
  const bool is_next = key == step.key_;
  if (!is_next) step.recordings_.clear();
  step.key_ = key;
  RETURN_IF_ERROR(step.Reserve(weights, device));

  auto* const pinned = step.pinned_.data<Input>();
  *pinned = {{static_cast<int32_t>(past), static_cast<int32_t>(context.n_padding() + past)}, id};
  RETURN_IF_ERROR(step.CarryOut({.weights = weights,
                                 .device = device,
                                 .context = context,
                                 .memory = key.memory,
                                 .wants_best = key.wants_best},
                                key.memory == nullptr || key.memory_id != 0, is_next));
  if (sequence.best_id != nullptr) {
    auto* const best = reinterpret_cast<int32_t*>(pinned + 1);
    RETURN_IF_ERROR(device.CopyToHost(step.best_id_.data<void>(), sizeof(int32_t), best));
    *sequence.best_id = *best;
  }
  if (sequence.logits != nullptr) {
    sequence.logits->resize(static_cast<size_t>(c.vocab_size));
    RETURN_IF_ERROR(device.CopyToHost(step.logits_.data<void>(),
                                      sequence.logits->size() * sizeof(float),
                                      sequence.logits->data()));
  }
  context.SetTokens(past + 1);
  return absl::OkStatus();
}

absl::Status DecodeStep::Reserve(const ModelWeights& weights, compute::Device& device) {
  const ModelConfig& c = weights.config();
  const auto reserve = [&](int64_t n, Buffer* buffer) -> absl::Status {
    const size_t size_bytes = static_cast<size_t>(n) * sizeof(float);
    if (buffer->data<void>() != nullptr && buffer->size_bytes() >= size_bytes) {
      return absl::OkStatus();
    }
    recordings_.clear();  // they use what there was
    return device.Reserve(size_bytes, buffer);
  };
  const int64_t q_size = c.n_heads * c.head_dim;
  const int64_t kv_size = c.n_kv_heads * c.head_dim;
  RETURN_IF_ERROR(reserve(sizeof(Input) / sizeof(float), &input_));
  RETURN_IF_ERROR(reserve(1, &best_id_));
  RETURN_IF_ERROR(reserve(c.hidden_size, &x_));
  RETURN_IF_ERROR(reserve(c.hidden_size, &normed_));
  for (Buffer* const buffer : {&q_, &rotated_, &attention_, &memory_output_}) {
    RETURN_IF_ERROR(reserve(q_size, buffer));
  }
  RETURN_IF_ERROR(reserve(kv_size, &k_));
  RETURN_IF_ERROR(reserve(kv_size, &v_));
  RETURN_IF_ERROR(reserve(c.intermediate_size, &gate_));
  RETURN_IF_ERROR(reserve(c.intermediate_size, &up_));
  RETURN_IF_ERROR(reserve(c.n_heads, &lse_));
  RETURN_IF_ERROR(reserve(c.n_heads, &memory_lse_));
  RETURN_IF_ERROR(reserve(c.vocab_size, &logits_));
  if (pinned_.data<void>() == nullptr) {
    ASSIGN_OR_RETURN(pinned_, device.AllocatePinned(sizeof(Input) + sizeof(int32_t)));
  }
  return absl::OkStatus();
}

absl::Status DecodeStep::CarryOut(const Call& call, bool is_whole, bool is_next) {
  if (recordings_.empty() && is_next) {
    // The second step: the first one made what the ops need.
    std::vector<std::unique_ptr<compute::Recording>> recordings;
    const int64_t n = is_whole ? 1 : call.n_pieces();
    for (int64_t piece = 0; piece < n; ++piece) {
      ASSIGN_OR_RETURN(recordings.emplace_back(), call.device.Record([this, call, is_whole, piece] {
        return is_whole ? Queue(call) : QueuePiece(call, piece);
      }));
    }
    recordings_ = std::move(recordings);
  }
  if (recordings_.empty()) return Queue(call);
  for (size_t piece = 0; piece < recordings_.size(); ++piece) {
    if (piece > 0) RETURN_IF_ERROR(AskMemory(call, static_cast<int64_t>(piece) - 1));
    RETURN_IF_ERROR(recordings_[piece]->Replay());
  }
  return absl::OkStatus();
}

absl::Status DecodeStep::Queue(const Call& call) {
  for (int64_t piece = 0; piece < call.n_pieces(); ++piece) {
    if (piece > 0) RETURN_IF_ERROR(AskMemory(call, piece - 1));
    RETURN_IF_ERROR(QueuePiece(call, piece));
  }
  return absl::OkStatus();
}

absl::Status DecodeStep::QueuePiece(const Call& call, int64_t piece) {
  const ModelConfig& c = call.weights.config();
  const auto* const input = input_.data<Input>();
  const View x = Row(x_, c.hidden_size);
  int64_t l = 0;
  if (piece == 0) {
    RETURN_IF_ERROR(
        call.device.CopyFromPinned(pinned_.data<void>(), sizeof(Input), input_.data<void>()));
    RETURN_IF_ERROR(compute::Embedding(
        call.device, {.table = call.weights.embedding(), .device_id = &input->id, .out = x}));
  } else {
    l = call.weights.memory().mem_layers[static_cast<size_t>(piece - 1)];
    RETURN_IF_ERROR(AfterMemory(call, l++));
  }
  const bool is_last = piece + 1 == call.n_pieces();
  const int64_t end =
      is_last ? c.n_layers : call.weights.memory().mem_layers[static_cast<size_t>(piece)];
  for (; l < end; ++l) {
    RETURN_IF_ERROR(BeforeMemory(call, l));
    RETURN_IF_ERROR(AfterMemory(call, l));
  }
  if (!is_last) return BeforeMemory(call, end);
  const Linear::Output logits{&call.weights.lm_head(), Row(logits_, c.vocab_size)};
  RETURN_IF_ERROR(Linear::ForwardNormed(
      call.device, {&logits, 1}, x,
      {call.weights.final_norm(), c.rms_norm_eps, Row(normed_, c.hidden_size)}));
  if (!call.wants_best) return absl::OkStatus();
  return compute::ArgMax(
      call.device, {.x = {logits_.data<float>(), {c.vocab_size}}, .out = best_id_.data<int32_t>()});
}

absl::Status DecodeStep::BeforeMemory(const Call& call, int64_t layer) {
  const ModelConfig& c = call.weights.config();
  const LayerWeights& w = call.weights.layer(layer);
  const bool asks = call.memory != nullptr && call.weights.MemoryIndex(layer) >= 0;
  const auto heads = [&](const Buffer& buffer, int64_t n) -> View {
    return {buffer.data<float>(), {n, c.head_dim}};
  };
  const int64_t kv_size = c.n_kv_heads * c.head_dim;
  const Linear::Output projections[] = {{w.q.get(), Row(q_, c.n_heads * c.head_dim)},
                                        {w.k.get(), Row(k_, kv_size)},
                                        {w.v.get(), Row(v_, kv_size)}};
  RETURN_IF_ERROR(
      Linear::ForwardNormed(call.device, projections, Row(x_, c.hidden_size),
                            {w.attention_norm, c.rms_norm_eps, Row(normed_, c.hidden_size)}));
  if (c.qk_norm) {
    const auto token = [&](const Buffer& buffer, int64_t n) -> View {
      return {buffer.data<float>(), {1, n, c.head_dim}};
    };
    RETURN_IF_ERROR(compute::QkNorm(call.device, {.queries = token(q_, c.n_heads),
                                                  .keys = token(k_, c.n_kv_heads),
                                                  .query_weight = w.q_norm,
                                                  .key_weight = w.k_norm,
                                                  .eps = c.rms_norm_eps}));
  }
  return compute::DecodeAttention(
      call.device,
      {.query = heads(q_, c.n_heads),
       .rotated = heads(rotated_, c.n_heads),
       .key = heads(k_, c.n_kv_heads),
       .value = heads(v_, c.n_kv_heads),
       .keys = call.context.Keys(layer, 0, call.context.room()),
       .values = call.context.Values(layer, 0, call.context.room()),
       .place = &input_.data<Input>()->place,
       .inverse_frequencies =
           call.weights.Rotates(layer) ? call.weights.inverse_frequencies() : compute::ConstView(),
       .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
       .output = heads(attention_, c.n_heads),
       .lse = asks ? View(lse_.data<float>(), {c.n_heads}) : View()});
}

absl::Status DecodeStep::AskMemory(const Call& call, int64_t memory_layer) {
  const ModelConfig& c = call.weights.config();
  const MemoryQuery query{.memory_layer = static_cast<int>(memory_layer),
                          .queries = rotated_.data<float>(),
                          .local_lse = lse_.data<float>(),
                          .n_queries = 1,
                          .n_heads = c.n_heads,
                          .n_kv_heads = c.n_kv_heads,
                          .head_dim = c.head_dim,
                          .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                          .is_step = key_.memory_id != 0};
  return call.memory->Attend(query, memory_output_.data<float>(), memory_lse_.data<float>());
}

absl::Status DecodeStep::AfterMemory(const Call& call, int64_t layer) {
  const ModelConfig& c = call.weights.config();
  const LayerWeights& w = call.weights.layer(layer);
  const View x = Row(x_, c.hidden_size);
  if (call.memory != nullptr && call.weights.MemoryIndex(layer) >= 0) {
    const auto heads = [&](const Buffer& buffer) -> View {
      return {buffer.data<float>(), {1, c.n_heads, c.head_dim}};
    };
    RETURN_IF_ERROR(compute::MergePartials(
        call.device, {.output = heads(attention_),
                      .lse = {lse_.data<float>(), {1, c.n_heads}},
                      .other_output = heads(memory_output_),
                      .other_lse = {memory_lse_.data<float>(), {1, c.n_heads}}}));
  }
  RETURN_IF_ERROR(w.o->Forward(call.device, Row(attention_, c.n_heads * c.head_dim), true, x));
  const View gate = Row(gate_, c.intermediate_size);
  RETURN_IF_ERROR(Linear::ForwardGated(call.device, {w.gate.get(), gate},
                                       {w.up.get(), Row(up_, c.intermediate_size)}, x,
                                       {w.mlp_norm, c.rms_norm_eps, Row(normed_, c.hidden_size)}));
  return w.down->Forward(call.device, gate, true, x);
}

}  // namespace fovea::model
