#include "model/forward_pass.h"

#include <algorithm>
#include <cmath>

#include "compute/attention.h"
#include "compute/convert.h"
#include "compute/decode_attention.h"
#include "compute/embedding.h"
#include "compute/qk_norm.h"
#include "compute/rms_norm.h"
#include "compute/rope.h"
#include "compute/silu_mul.h"
#include "model/decode_step.h"

namespace fovea::model {
namespace {

using compute::Buffer;
using compute::Linear;
using compute::View;

// Rows whose logits are computed at once: of a large vocabulary a row takes hundreds of kilobytes.
constexpr int64_t kLogitRowsAtOnce = 512;

// [n, n_heads, head_dim] → [n, n_heads · head_dim].
View Flat(const View& heads) {
  return {heads.dtype(), heads.data(), {heads.dim(0), heads.dim(1) * heads.dim(2)}};
}

}  // namespace

ForwardPass::ForwardPass(const ModelWeights& weights, compute::Device& device,
                         std::span<const Sequence> sequences, Workspace* workspace)
    : weights_(weights), device_(device), sequences_(sequences), work_(*workspace) {}

View ForwardPass::Matrix(const Buffer& buffer, int64_t begin, int64_t n, int64_t width) const {
  return {buffer.data<float>() + begin * width, {n, width}};
}

View ForwardPass::Heads(const Buffer& buffer, int64_t begin, int64_t n, int64_t n_heads) const {
  const int64_t head_dim = weights_.config().head_dim;
  return {buffer.data<float>() + begin * n_heads * head_dim, {n, n_heads, head_dim}};
}

bool ForwardPass::WantsEntriesOnly() const {
  return std::all_of(sequences_.begin(), sequences_.end(), [](const Sequence& sequence) {
    return sequence.context->is_window() && sequence.logits == nullptr &&
           sequence.best_id == nullptr;
  });
}

absl::Status ForwardPass::Run() {
  if (sequences_.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(Begin());
  const bool entries_only = WantsEntriesOnly();
  int64_t n_layers = weights_.config().n_layers;
  if (entries_only) {
    n_layers = weights_.n_mem_layers() == 0 ? 0 : weights_.memory().mem_layers.back() + 1;
  }
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    RETURN_IF_ERROR(BeforeMemory(layer));
    if (entries_only && layer == n_layers - 1) break;  // nothing after its entries is needed
    RETURN_IF_ERROR(AttendToMemory(layer));
    RETURN_IF_ERROR(AfterMemory(layer));
  }
  RETURN_IF_ERROR(Logits());
  for (size_t i = 0; i < sequences_.size(); ++i) {
    sequences_[i].context->SetTokens(rows_[i].past + rows_[i].n);
  }
  return absl::OkStatus();
}

absl::Status ForwardPass::Begin() {
  std::vector<int32_t> ids;
  for (const Sequence& sequence : sequences_) {
    const LocalContext& context = *sequence.context;
    const auto n = static_cast<int64_t>(sequence.ids.size());
    if (n == 0) return absl::InvalidArgumentError("no tokens to run the model on");
    const int64_t past = context.n_tokens();
    FOVEA_CHECK(past == 0 || !context.is_window());
    RETURN_IF_ERROR(context.CheckRoom(weights_.config(), n));
    rows_.push_back({.begin = n_rows_, .n = n, .past = past});
    n_rows_ += n;
    if (sequences_.size() > 1) ids.insert(ids.end(), sequence.ids.begin(), sequence.ids.end());
  }
  RETURN_IF_ERROR(Reserve());
  if (device_.CanRecord()) {
    std::vector<compute::TokenPlace> places;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const int64_t past = rows_[i].past;
      places.push_back({static_cast<int32_t>(past),
                        static_cast<int32_t>(sequences_[i].context->n_padding() + past)});
    }
    const size_t size_bytes = places.size() * sizeof(places[0]);
    RETURN_IF_ERROR(device_.Reserve(size_bytes, &work_.places));
    RETURN_IF_ERROR(device_.CopyFromHost(places.data(), size_bytes, work_.places.data<void>()));
  }
  return compute::Embedding(
      device_, {.table = weights_.embedding(),
                .ids = sequences_.size() > 1 ? std::span<const int32_t>(ids) : sequences_[0].ids,
                .out = Hidden(work_.x)});
}

absl::Status ForwardPass::Reserve() {
  const ModelConfig& c = weights_.config();
  const auto reserve = [&](int64_t width, Buffer* buffer) {
    return device_.Reserve(static_cast<size_t>(n_rows_ * width) * sizeof(float), buffer);
  };
  const int64_t q_size = c.n_heads * c.head_dim;
  RETURN_IF_ERROR(reserve(c.hidden_size, &work_.x));
  RETURN_IF_ERROR(reserve(c.hidden_size, &work_.normed));
  RETURN_IF_ERROR(reserve(q_size, &work_.q));
  RETURN_IF_ERROR(reserve(c.n_kv_heads * c.head_dim, &work_.k));
  RETURN_IF_ERROR(reserve(c.n_kv_heads * c.head_dim, &work_.v));
  RETURN_IF_ERROR(reserve(q_size, &work_.attention));
  RETURN_IF_ERROR(device_.Reserve(static_cast<size_t>(q_size) * sizeof(float), &work_.rotated));
  RETURN_IF_ERROR(reserve(c.intermediate_size, &work_.gate));
  RETURN_IF_ERROR(reserve(c.intermediate_size, &work_.up));
  RETURN_IF_ERROR(reserve(c.n_heads, &work_.lse));
  const bool has_memory = std::any_of(sequences_.begin(), sequences_.end(),
                                      [](const Sequence& s) { return s.memory != nullptr; });
  if (has_memory && weights_.n_mem_layers() > 0) {
    RETURN_IF_ERROR(reserve(q_size, &work_.memory_output));
    RETURN_IF_ERROR(reserve(c.n_heads, &work_.memory_lse));
  }
  for (size_t i = 0; i < sequences_.size(); ++i) {
    RETURN_IF_ERROR(
        sequences_[i].context->Reserve(device_, c, weights_.memory(), rows_[i].past + rows_[i].n));
  }
  return absl::OkStatus();
}

absl::StatusOr<View> ForwardPass::FactorOf(std::initializer_list<const Linear*> products,
                                           const View& otherwise) {
  const bool all_round = std::all_of(products.begin(), products.end(), [&](const Linear* linear) {
    return linear->TakesBFloat16(n_rows_);
  });
  if (!all_round) return otherwise;
  RETURN_IF_ERROR(
      device_.Reserve(static_cast<size_t>(otherwise.size()) * sizeof(BFloat16), &work_.rounded));
  return View(work_.rounded.data<BFloat16>(), {otherwise.dim(0), otherwise.dim(1)});
}

absl::Status ForwardPass::BeforeMemory(int64_t layer) {
  const ModelConfig& c = weights_.config();
  const LayerWeights& w = weights_.layer(layer);
  // Keys and values of one sequence are written where they stay.
  const LocalContext& first = *sequences_[0].context;
  const bool in_place = sequences_.size() == 1 && first.keeps_layers() &&
                        first.dtype() == compute::DType::kF32 && !IsStep(0);
  const View q = Heads(work_.q, 0, n_rows_, c.n_heads);
  const View k = in_place ? first.Keys(layer, rows_[0].past, n_rows_)
                          : Heads(work_.k, 0, n_rows_, c.n_kv_heads);
  const View v = in_place ? first.Values(layer, rows_[0].past, n_rows_)
                          : Heads(work_.v, 0, n_rows_, c.n_kv_heads);
  const Linear::Output outputs[] = {
      {w.q.get(), Flat(q)}, {w.k.get(), Flat(k)}, {w.v.get(), Flat(v)}};
  ASSIGN_OR_RETURN(const View normed,
                   FactorOf({w.q.get(), w.k.get(), w.v.get()}, Hidden(work_.normed)));
  if (normed.dtype() == compute::DType::kF32) {
    RETURN_IF_ERROR(Linear::ForwardNormed(device_, outputs, Hidden(work_.x),
                                          {w.attention_norm, c.rms_norm_eps, normed}));
  } else {
    RETURN_IF_ERROR(compute::RmsNorm(
        device_,
        {.x = Hidden(work_.x), .weight = w.attention_norm, .out = normed, .eps = c.rms_norm_eps}));
    RETURN_IF_ERROR(Linear::ForwardTogether(device_, outputs, normed));
  }
  if (c.qk_norm) {
    RETURN_IF_ERROR(compute::QkNorm(device_, {.queries = q,
                                              .keys = k,
                                              .query_weight = w.q_norm,
                                              .key_weight = w.k_norm,
                                              .eps = c.rms_norm_eps}));
  }
  std::vector<compute::AttentionArgs> attentions;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Rows& rows = rows_[i];
    const View keys = k.Rows(rows.begin, rows.n);
    const View values = v.Rows(rows.begin, rows.n);
    RETURN_IF_ERROR(IsStep(i)
                        ? StepLocally(layer, i, keys, values)
                        : PrepareLocally(layer, sequences_[i], rows, keys, values, &attentions));
  }
  return compute::AttentionTogether(device_, attentions);
}

absl::Status ForwardPass::PrepareLocally(int64_t layer, const Sequence& sequence, const Rows& rows,
                                         const View& keys, const View& values,
                                         std::vector<compute::AttentionArgs>* attentions) {
  const ModelConfig& c = weights_.config();
  const LocalContext& context = *sequence.context;
  const int64_t m = weights_.MemoryIndex(layer);
  const View queries = Heads(work_.q, rows.begin, rows.n, c.n_heads);
  if (m >= 0 && context.keeps_entries()) {
    RETURN_IF_ERROR(compute::Convert(device_, {.from = keys,
                                               .factors = weights_.key_gain(m),
                                               .to = context.MemoryKeys(m, rows.past, rows.n)}));
  }
  if (weights_.Rotates(layer)) {
    const int64_t first_position = context.n_padding() + rows.past;
    for (const View& x : {queries, keys}) {
      RETURN_IF_ERROR(compute::Rope(device_, {.x = x,
                                              .inverse_frequencies = weights_.inverse_frequencies(),
                                              .first_position = first_position,
                                              .sequence_begins = context.window_begins()}));
    }
  }
  if (m >= 0) {
    if (!context.sampled_tokens().empty()) {
      RETURN_IF_ERROR(compute::Convert(
          device_,
          {.from = queries, .tokens = context.sampled_tokens(), .to = context.SampledQueries(m)}));
    }
  }
  // Into the context, where they are not there already.
  if (context.keeps_layers()) {
    const View kept = context.Keys(layer, rows.past, rows.n);
    if (kept.data() != keys.data()) {
      RETURN_IF_ERROR(compute::Convert(device_, {.from = keys, .to = kept}));
    }
  }
  if (context.keeps_layers() || m >= 0) {
    const View kept = context.Values(layer, rows.past, rows.n);
    if (kept.data() != values.data()) {
      RETURN_IF_ERROR(compute::Convert(device_, {.from = values, .to = kept}));
    }
  }
  if (m == weights_.n_mem_layers() - 1 && m >= 0 && WantsEntriesOnly()) return absl::OkStatus();
  const int64_t total = rows.past + rows.n;
  attentions->push_back(
      {.queries = queries,
       .keys = context.keeps_layers() ? context.Keys(layer, 0, total) : keys,
       .values = context.keeps_layers() ? context.Values(layer, 0, total) : values,
       .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
       .causal = true,
       .sequence_begins = context.window_begins(),
       .output = Heads(work_.attention, rows.begin, rows.n, c.n_heads),
       .lse =
           Attends(sequence, layer) ? Matrix(work_.lse, rows.begin, rows.n, c.n_heads) : View()});
  return absl::OkStatus();
}

bool ForwardPass::IsStep(size_t i) const {
  return rows_[i].n == 1 && DecodeStep::Suits(weights_, device_, *sequences_[i].context);
}

absl::Status ForwardPass::StepLocally(int64_t layer, size_t i, const View& key, const View& value) {
  const ModelConfig& c = weights_.config();
  const LocalContext& context = *sequences_[i].context;
  const Rows& rows = rows_[i];
  const auto row = [&](const View& x) { return View(x.As<float>(), {x.dim(1), c.head_dim}); };
  const View query = Heads(work_.q, rows.begin, 1, c.n_heads);
  const View rotated = Heads(work_.rotated, 0, 1, c.n_heads);
  const bool attends = Attends(sequences_[i], layer);
  RETURN_IF_ERROR(compute::DecodeAttention(
      device_, {.query = row(query),
                .rotated = row(rotated),
                .key = row(key),
                .value = row(value),
                .keys = context.Keys(layer, 0, context.room()),
                .values = context.Values(layer, 0, context.room()),
                .place = work_.places.data<compute::TokenPlace>() + i,
                .inverse_frequencies =
                    weights_.Rotates(layer) ? weights_.inverse_frequencies() : compute::ConstView(),
                .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                .output = row(Heads(work_.attention, rows.begin, 1, c.n_heads)),
                .lse = attends ? View(work_.lse.data<float>() + rows.begin * c.n_heads, {c.n_heads})
                               : View()}));
  if (!attends) return absl::OkStatus();
  return device_.Copy(rotated.data(), static_cast<size_t>(query.size()) * sizeof(float),
                      query.data());
}

absl::Status ForwardPass::AttendToMemory(int64_t layer) {
  std::vector<MemoryRequest> requests;  // of those that answer where the model's memory is
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (!Attends(sequences_[i], layer)) continue;
    const MemoryRequest request = RequestOf(weights_.MemoryIndex(layer), sequences_[i], rows_[i]);
    if (request.memory->place() == MemoryPlace::kDevice || device_.is_host_memory()) {
      requests.push_back(request);
    } else {
      RETURN_IF_ERROR(AttendOnHost(request));
    }
  }
  if (requests.empty()) return absl::OkStatus();
  requests[0].memory->AttendTogether(requests);
  for (const MemoryRequest& request : requests) RETURN_IF_ERROR(request.status);
  return absl::OkStatus();
}

MemoryRequest ForwardPass::RequestOf(int64_t memory_layer, const Sequence& sequence,
                                     const Rows& rows) const {
  const ModelConfig& c = weights_.config();
  return {.memory = sequence.memory,
          .query = {.memory_layer = static_cast<int>(memory_layer),
                    .queries = Heads(work_.q, rows.begin, rows.n, c.n_heads).As<float>(),
                    .local_lse = Matrix(work_.lse, rows.begin, rows.n, c.n_heads).As<float>(),
                    .n_queries = rows.n,
                    .n_heads = c.n_heads,
                    .n_kv_heads = c.n_kv_heads,
                    .head_dim = c.head_dim,
                    .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim))},
          .output = Heads(work_.memory_output, rows.begin, rows.n, c.n_heads).As<float>(),
          .lse = Matrix(work_.memory_lse, rows.begin, rows.n, c.n_heads).As<float>()};
}

absl::Status ForwardPass::AttendOnHost(const MemoryRequest& request) {
  MemoryQuery query = request.query;
  const int64_t n_rows = query.n_queries * query.n_heads;
  const auto output_bytes = static_cast<size_t>(n_rows * query.head_dim) * sizeof(float);
  const auto lse_bytes = static_cast<size_t>(n_rows) * sizeof(float);
  const auto reserve = [&](size_t size_bytes, Buffer* buffer) -> absl::Status {
    if (buffer->size_bytes() >= size_bytes) return absl::OkStatus();
    ASSIGN_OR_RETURN(*buffer, device_.AllocatePinned(size_bytes));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(reserve(output_bytes, &work_.host_queries));
  RETURN_IF_ERROR(reserve(lse_bytes, &work_.host_local_lse));
  RETURN_IF_ERROR(reserve(output_bytes, &work_.host_output));
  RETURN_IF_ERROR(reserve(lse_bytes, &work_.host_lse));
  query.queries = work_.host_queries.data<float>();
  query.local_lse = work_.host_local_lse.data<float>();
  auto* const host_output = work_.host_output.data<float>();
  auto* const host_lse = work_.host_lse.data<float>();
  RETURN_IF_ERROR(
      device_.CopyToHost(request.query.queries, output_bytes, work_.host_queries.data<float>()));
  RETURN_IF_ERROR(
      device_.CopyToHost(request.query.local_lse, lse_bytes, work_.host_local_lse.data<float>()));
  RETURN_IF_ERROR(request.memory->Attend(query, host_output, host_lse));
  RETURN_IF_ERROR(device_.CopyFromHost(host_output, output_bytes, request.output));
  return device_.CopyFromHost(host_lse, lse_bytes, request.lse);
}

absl::Status ForwardPass::AfterMemory(int64_t layer) {
  const ModelConfig& c = weights_.config();
  const LayerWeights& w = weights_.layer(layer);
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (!Attends(sequences_[i], layer)) continue;
    const Rows& rows = rows_[i];
    RETURN_IF_ERROR(compute::MergePartials(
        device_, {.output = Heads(work_.attention, rows.begin, rows.n, c.n_heads),
                  .lse = Matrix(work_.lse, rows.begin, rows.n, c.n_heads),
                  .other_output = Heads(work_.memory_output, rows.begin, rows.n, c.n_heads),
                  .other_lse = Matrix(work_.memory_lse, rows.begin, rows.n, c.n_heads)}));
  }
  const View x = Hidden(work_.x);
  RETURN_IF_ERROR(
      w.o->Forward(device_, Flat(Heads(work_.attention, 0, n_rows_, c.n_heads)), true, x));
  const View gate = Matrix(work_.gate, 0, n_rows_, c.intermediate_size);
  const View up = Matrix(work_.up, 0, n_rows_, c.intermediate_size);
  ASSIGN_OR_RETURN(const View normed, FactorOf({w.gate.get(), w.up.get()}, Hidden(work_.normed)));
  if (normed.dtype() == compute::DType::kF32) {
    RETURN_IF_ERROR(Linear::ForwardGated(device_, {w.gate.get(), gate}, {w.up.get(), up}, x,
                                         {w.mlp_norm, c.rms_norm_eps, normed}));
    return w.down->Forward(device_, gate, true, x);
  }
  RETURN_IF_ERROR(compute::RmsNorm(
      device_, {.x = x, .weight = w.mlp_norm, .out = normed, .eps = c.rms_norm_eps}));
  const Linear::Output outputs[] = {{w.gate.get(), gate}, {w.up.get(), up}};
  RETURN_IF_ERROR(Linear::ForwardTogether(device_, outputs, normed));
  ASSIGN_OR_RETURN(const View activated, FactorOf({w.down.get()}, gate));
  RETURN_IF_ERROR(compute::SiluMul(device_, {.gate = gate, .up = up, .out = activated}));
  return w.down->Forward(device_, activated, true, x);
}

absl::Status ForwardPass::Logits() {
  const ModelConfig& c = weights_.config();
  // The wanted rows of all sequences, normed, beside one another.
  int64_t n_wanted = 0;
  std::vector<float*> to;  // [n_wanted]: where the row's logits go
  work_.host_logits.resize(sequences_.size());
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& sequence = sequences_[i];
    if (sequence.logits == nullptr && sequence.best_id == nullptr) continue;
    std::vector<float>& logits =
        sequence.logits != nullptr ? *sequence.logits : work_.host_logits[i];
    const int64_t n = sequence.all_logits ? rows_[i].n : 1;
    const int64_t first = rows_[i].begin + rows_[i].n - n;
    RETURN_IF_ERROR(
        compute::RmsNorm(device_, {.x = Matrix(work_.x, first, n, c.hidden_size),
                                   .weight = weights_.final_norm(),
                                   .out = Matrix(work_.normed, n_wanted, n, c.hidden_size),
                                   .eps = c.rms_norm_eps}));
    logits.resize(static_cast<size_t>(n * c.vocab_size));
    for (int64_t row = 0; row < n; ++row) to.push_back(logits.data() + row * c.vocab_size);
    n_wanted += n;
  }
  // Portions of about one size: few rows by themselves would be computed in another way.
  const int64_t n_portions = (n_wanted + kLogitRowsAtOnce - 1) / kLogitRowsAtOnce;
  const size_t row_bytes = static_cast<size_t>(c.vocab_size) * sizeof(float);
  for (int64_t portion = 0; portion < n_portions; ++portion) {
    const int64_t begin = n_wanted * portion / n_portions;
    const int64_t n = n_wanted * (portion + 1) / n_portions - begin;
    // Where the host shares the device's memory, rows of one sequence are written where they go.
    float* const first = to[static_cast<size_t>(begin)];
    const bool in_place = device_.is_host_memory() &&
                          to[static_cast<size_t>(begin + n - 1)] == first + (n - 1) * c.vocab_size;
    if (!in_place) {
      RETURN_IF_ERROR(device_.Reserve(static_cast<size_t>(n) * row_bytes, &work_.logits));
    }
    const View logits =
        in_place ? View(first, {n, c.vocab_size}) : Matrix(work_.logits, 0, n, c.vocab_size);
    RETURN_IF_ERROR(weights_.lm_head().Forward(
        device_, Matrix(work_.normed, begin, n, c.hidden_size), false, logits));
    for (int64_t row = 0; row < n && !in_place;) {
      float* const host = to[static_cast<size_t>(begin + row)];
      int64_t n_beside = 1;  // that go to the same place, one after another
      while (row + n_beside < n &&
             to[static_cast<size_t>(begin + row + n_beside)] == host + n_beside * c.vocab_size) {
        ++n_beside;
      }
      RETURN_IF_ERROR(device_.CopyToHost(logits.Rows(row, n_beside).data(),
                                         static_cast<size_t>(n_beside) * row_bytes, host));
      row += n_beside;
    }
  }
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& sequence = sequences_[i];
    if (sequence.best_id == nullptr) continue;
    const std::vector<float>& logits =
        sequence.logits != nullptr ? *sequence.logits : work_.host_logits[i];
    const auto last = logits.end() - c.vocab_size;
    *sequence.best_id = static_cast<int32_t>(std::max_element(last, logits.end()) - last);
  }
  return absl::OkStatus();
}

}  // namespace fovea::model
