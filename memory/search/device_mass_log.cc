#include "memory/search/device_mass_log.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "compute/append_row.h"
#include "compute/top_k_attention.h"

namespace fovea::memory {
namespace {

using compute::Buffer;

// On the device: then the host adds it up.
constexpr size_t kLogBytes = size_t{64} << 20;
constexpr int64_t kMostSteps = 256;

}  // namespace

absl::StatusOr<DeviceMassLog::Room> DeviceMassLog::Reserve(const model::MemoryQuery& query,
                                                           int top_k) {
  if (query.is_step) return ReserveStep(query, top_k);
  const Call call{this, &query};
  return ReserveTogether({&call, 1}, top_k);
}

absl::Status DeviceMassLog::Add(const model::MemoryQuery& query, const float* lse) {
  if (query.is_step) return AddStep(query, lse);
  const Call call{this, &query};
  return AddTogether({&call, 1}, lse);
}

absl::StatusOr<DeviceMassLog::Room> DeviceMassLog::ReserveTogether(std::span<const Call> calls,
                                                                   int top_k) {
  int64_t n_rows = 0;
  for (const Call& call : calls) {
    n_rows = std::max(n_rows, call.first_row + call.query->n_queries * call.query->n_heads);
  }
  const auto n_kept = static_cast<size_t>(n_rows * top_k);
  const auto lse_bytes = static_cast<size_t>(n_rows) * sizeof(float);
  const bool has_local_lse = calls[0].query->local_lse != nullptr;
  compute::Device& device = *calls[0].log->device_;
  const auto rows = std::make_shared<Buffers>();
  ASSIGN_OR_RETURN(rows->positions, device.Allocate(n_kept * sizeof(int64_t)));
  ASSIGN_OR_RETURN(rows->scores, device.Allocate(n_kept * sizeof(float)));
  ASSIGN_OR_RETURN(rows->lse, device.Allocate(lse_bytes));
  if (has_local_lse) {
    ASSIGN_OR_RETURN(rows->local_lse, device.Allocate(lse_bytes));
  }
  // A call that failed before it was added has left a room without content: the next takes its
  // place.
  for (const Call& call : calls) {
    const model::MemoryQuery& query = *call.query;
    call.log->pending_ = Kept{.memory_layer = query.memory_layer,
                              .first_row = call.first_row,
                              .first_position = call.first_position,
                              .n_rows = query.n_queries * query.n_heads,
                              .top_k = top_k,
                              .scale = query.scale,
                              .has_local_lse = has_local_lse,
                              .rows = rows};
  }
  return Room{rows->positions.data<int64_t>(), rows->scores.data<float>()};
}

absl::Status DeviceMassLog::AddTogether(std::span<const Call> calls, const float* lse) {
  compute::Device& device = *calls[0].log->device_;
  const Kept& first = *calls[0].log->pending_;
  RETURN_IF_ERROR(device.Copy(lse, first.rows->lse.size_bytes(), first.rows->lse.data<void>()));
  if (first.has_local_lse) {
    RETURN_IF_ERROR(device.Copy(calls[0].query->local_lse, first.rows->local_lse.size_bytes(),
                                first.rows->local_lse.data<void>()));
  }
  for (const Call& call : calls) {
    DeviceMassLog& log = *call.log;
    log.calls_bytes_ += log.pending_->size_bytes();
    log.calls_.push_back(*std::exchange(log.pending_, std::nullopt));
    if (log.calls_bytes_ > kLogBytes) RETURN_IF_ERROR(log.AddUp().status());
  }
  return absl::OkStatus();
}

absl::Status DeviceMassLog::BeginStep() {
  if (steps_.n_heads > 0 && n_logged_steps_ == steps_.capacity) {
    RETURN_IF_ERROR(AddUp().status());
  }
  ++n_logged_steps_;
  ++n_steps_;
  return absl::OkStatus();
}

absl::StatusOr<DeviceMassLog::Room> DeviceMassLog::ReserveStep(const model::MemoryQuery& query,
                                                               int top_k) {
  if (steps_.n_heads != query.n_heads || steps_.top_k != top_k) {
    if (steps_.n_heads > 0) RETURN_IF_ERROR(AddUp().status());
    Steps steps{.n_heads = query.n_heads, .top_k = top_k, .scale = query.scale};
    const size_t step_bytes = steps.row_bytes() * mass_.size();
    steps.capacity =
        std::clamp<int64_t>(static_cast<int64_t>(kLogBytes / step_bytes), 1, kMostSteps);
    ASSIGN_OR_RETURN(steps.kept, device_->Allocate(steps.kept_bytes()));
    for (size_t layer = 0; layer < mass_.size(); ++layer) {
      ASSIGN_OR_RETURN(Buffer rows,
                       device_->Allocate(static_cast<size_t>(steps.capacity) * steps.row_bytes()));
      steps.rows.push_back(std::move(rows));
    }
    ASSIGN_OR_RETURN(steps.next_row, device_->Allocate(sizeof(int32_t)));
    steps_ = std::move(steps);
    RETURN_IF_ERROR(ForgetSteps());
    n_logged_steps_ = 1;  // the one that begins
  }
  auto* const positions = steps_.kept.data<int64_t>();
  return Room{positions, reinterpret_cast<float*>(positions + steps_.n_kept())};
}

absl::Status DeviceMassLog::AddStep(const model::MemoryQuery& query, const float* lse) {
  const auto lse_bytes = query.n_heads * static_cast<int64_t>(sizeof(float));
  const compute::AppendRowArgs::Piece pieces[] = {
      {steps_.kept.data<void>(), static_cast<int64_t>(steps_.kept_bytes())},
      {lse, lse_bytes},
      {query.local_lse, lse_bytes}};
  const auto layer = static_cast<size_t>(query.memory_layer);
  return compute::AppendRow(*device_, {.pieces = pieces,
                                       .rows = steps_.rows[layer].data<void>(),
                                       .n_rows = steps_.capacity,
                                       .next_row = steps_.next_row.data<int32_t>(),
                                       .advances = layer + 1 == mass_.size()});
}

absl::StatusOr<const std::vector<absl::flat_hash_map<int64_t, float>>*> DeviceMassLog::AddUp() {
  RETURN_IF_ERROR(AddUpCalls());
  RETURN_IF_ERROR(AddUpSteps());
  return &mass_;
}

absl::Status DeviceMassLog::AddUpCalls() {
  std::vector<int64_t> positions;
  std::vector<float> scores, lse, local_lse;
  for (; !calls_.empty(); calls_.pop_front()) {
    const Kept& kept = calls_.front();
    const auto n_rows = static_cast<size_t>(kept.n_rows);
    // n_per_row numbers of each of the call's rows.
    const auto copy = [&](const Buffer& from, int64_t n_per_row, auto* to) {
      to->resize(n_rows * static_cast<size_t>(n_per_row));
      using Number = typename std::remove_reference_t<decltype(*to)>::value_type;
      return device_->CopyToHost(from.data<Number>() + kept.first_row * n_per_row,
                                 to->size() * sizeof(Number), to->data());
    };
    RETURN_IF_ERROR(copy(kept.rows->positions, kept.top_k, &positions));
    RETURN_IF_ERROR(copy(kept.rows->scores, kept.top_k, &scores));
    RETURN_IF_ERROR(copy(kept.rows->lse, 1, &lse));
    if (kept.has_local_lse) RETURN_IF_ERROR(copy(kept.rows->local_lse, 1, &local_lse));
    AddRows(kept.memory_layer, {.n_rows = n_rows,
                                .top_k = kept.top_k,
                                .scale = kept.scale,
                                .positions = positions.data(),
                                .scores = scores.data(),
                                .lse = lse.data(),
                                .local_lse = kept.has_local_lse ? local_lse.data() : nullptr,
                                .first_position = kept.first_position});
  }
  calls_bytes_ = 0;
  return absl::OkStatus();
}

absl::Status DeviceMassLog::AddUpSteps() {
  if (steps_.n_heads == 0 || n_logged_steps_ == 0) return absl::OkStatus();
  // Steps that failed half-way are counted on the host alone.
  int32_t n_rows = 0;
  RETURN_IF_ERROR(device_->CopyToHost(steps_.next_row.data<void>(), sizeof(n_rows), &n_rows));
  const size_t row_bytes = steps_.row_bytes();
  std::vector<std::byte> rows(static_cast<size_t>(n_rows) * row_bytes);
  std::vector<int64_t> positions(steps_.n_kept());
  for (size_t layer = 0; layer < mass_.size() && n_rows > 0; ++layer) {
    RETURN_IF_ERROR(device_->CopyToHost(steps_.rows[layer].data<void>(), rows.size(), rows.data()));
    for (size_t row = 0; row < static_cast<size_t>(n_rows); ++row) {
      // Rows are whole words of four bytes, not of eight.
      const std::byte* const from = rows.data() + row * row_bytes;
      std::memcpy(positions.data(), from, positions.size() * sizeof(int64_t));
      const auto* const scores =
          reinterpret_cast<const float*>(from + positions.size() * sizeof(int64_t));
      AddRows(static_cast<int>(layer), {.n_rows = static_cast<size_t>(steps_.n_heads),
                                        .top_k = steps_.top_k,
                                        .scale = steps_.scale,
                                        .positions = positions.data(),
                                        .scores = scores,
                                        .lse = scores + steps_.n_kept(),
                                        .local_lse = scores + steps_.n_kept() + steps_.n_heads});
    }
  }
  return ForgetSteps();
}

void DeviceMassLog::AddRows(int memory_layer, const Rows& rows) {
  auto& mass = mass_[static_cast<size_t>(memory_layer)];
  const auto top_k = static_cast<size_t>(rows.top_k);
  for (size_t row = 0; row < rows.n_rows; ++row) {
    const float total = rows.local_lse != nullptr
                            ? compute::LogAddExp(rows.lse[row], rows.local_lse[row])
                            : rows.lse[row];
    for (size_t j = row * top_k; j < (row + 1) * top_k; ++j) {
      if (rows.positions[j] < 0) break;
      const int64_t position = rows.positions[j] - rows.first_position;
      if (position < 0 || position >= n_positions_) continue;
      mass[position] += std::exp(rows.scores[j] * rows.scale - total);
    }
  }
}

absl::Status DeviceMassLog::ForgetSteps() {
  n_logged_steps_ = 0;
  if (steps_.n_heads == 0) return absl::OkStatus();
  static_assert(sizeof(float) == sizeof(int32_t));  // 0.0f is 0
  return device_->Fill(0.0f, 1, steps_.next_row.data<float>());
}

absl::Status DeviceMassLog::Reset() {
  calls_.clear();
  calls_bytes_ = 0;
  for (auto& layer : mass_) layer.clear();
  n_steps_ = 0;
  return ForgetSteps();
}

}  // namespace fovea::memory
