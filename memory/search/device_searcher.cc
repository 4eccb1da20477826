#include "memory/search/device_searcher.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "compute/append_row.h"
#include "compute/coded_memory_attention.h"
#include "compute/memory_attention.h"
#include "compute/top_k_attention.h"
#include "memory/block_layout.h"
#include "memory/resident_entries.h"
#include "memory/sinks.h"

namespace fovea::memory {
namespace {

using compute::Buffer;
using compute::ConstView;

// Of what was kept for attribution, on the device: then the host adds it up.
constexpr size_t kLogBytes = size_t{64} << 20;

class DeviceSearcher final : public MemorySearcher {
 public:
  DeviceSearcher(compute::Device* device, std::shared_ptr<const Generation> generation,
                 SearchOptions options)
      : device_(device), generation_(std::move(generation)), options_(std::move(options)) {}

  absl::Status Initialize();

  model::MemoryPlace place() const override { return model::MemoryPlace::kDevice; }
  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override;
  absl::Status BeginStep(uint64_t* recording_id) override;
  // Shards on a device answer in one phase, or on the host.
  absl::StatusOr<model::MemoryHits> FindTop(const model::MemoryQuery&, int) override {
    return NoShards();
  }
  absl::Status AttendTo(const model::MemoryQuery&, model::MemoryHits*, float*, float*) override {
    return NoShards();
  }
  absl::Status AddMass(const model::MemoryQuery&, model::MemoryHits*, const float*) override {
    return NoShards();
  }

  void AddSessionWindow(model::EncodedWindow window) override;
  size_t n_session_windows() const override { return session_.size(); }
  void TruncateSessionWindows(size_t n) override {
    if (n >= session_.size()) return;
    session_.resize(n);
    session_is_uploaded_ = false;
  }
  std::vector<SlotMass> Mass() const override;
  int64_t n_rows() const override { return n_rows_ + n_steps_ * steps_.n_heads; }
  void ResetMass() override {
    log_.clear();
    log_bytes_ = 0;
    log_status_ = ForgetSteps();
    for (auto& layer : mass_) layer.clear();
    n_rows_ = n_steps_ = 0;
  }
  AuditResult Audit() const override {
    const auto n = static_cast<size_t>(n_mem_layers_);
    return {.captured_mass = std::vector<double>(n, 1.0),
            .needle_recall = std::vector<double>(n, 1.0),
            .n_confident = std::vector<int64_t>(n, 0)};
  }
  const Generation& generation() const override { return *generation_; }
  const QueryScope& scope() const override { return options_.scope; }
  bool Allows(Slot slot) const override;
  uint64_t n_tokens() const override { return n_tokens_; }

 private:
  static absl::Status NoShards() {
    return absl::UnimplementedError("shards of a memory on a GPU: search them on device 'cpu'");
  }
  // What a call kept, until the host adds it up.
  struct Kept {
    int memory_layer;
    int64_t n_rows;
    int top_k;
    float scale;
    Buffer positions, scores, lse, local_lse;  // local_lse: none without a local context
    bool has_local_lse;
  };
  // What steps of one token kept, a row each, written by ops that are recorded once
  // (compute/append_row.h): [positions | scores | lse | local_lse] of all heads.
  struct StepLog {
    int64_t n_heads = 0;  // 0: there was no step yet
    int top_k = 0;
    float scale = 0.0f;
    int64_t capacity = 0;           // rows
    Buffer kept = {};               // [positions | scores] of a call
    std::vector<Buffer> rows = {};  // [n_mem_layers]: [capacity, row_bytes()]
    Buffer next_row = {};           // int32
    size_t n_kept() const { return static_cast<size_t>(n_heads * top_k); }
    size_t kept_bytes() const { return n_kept() * (sizeof(int64_t) + sizeof(float)); }
    size_t row_bytes() const {
      return kept_bytes() + 2 * static_cast<size_t>(n_heads) * sizeof(float);
    }
  };
  absl::Status UploadSession();
  // The keys that a query is asked of: what is stored, then the conversation's own.
  std::vector<compute::CodedMemoryPart> PartsOf(int memory_layer) const;
  absl::Status ReserveSteps(const model::MemoryQuery& query, int top_k);
  absl::Status LogStep(const model::MemoryQuery& query, const float* lse);
  absl::Status ForgetSteps() const;
  int NumCandidates(int memory_layer, int top_k) const {
    const int wanted = entries_ != nullptr ? entries_->n_candidates(memory_layer) : 0;
    return std::clamp(wanted, top_k, compute::kMaxCandidates);
  }
  // By codes or by keys, as the entries were loaded.
  absl::Status Search(const compute::CodedMemoryAttentionArgs& args);
  absl::Status Log(const model::MemoryQuery& query, int top_k, Buffer positions, Buffer scores,
                   const float* lse);
  // What is logged → mass_.
  absl::Status AddUp() const;
  absl::Status AddUpSteps() const;
  struct KeptRows {
    size_t n_rows;
    int top_k;
    float scale;
    const int64_t* positions;  // [n_rows, top_k]
    const float* scores;       // [n_rows, top_k]
    const float* lse;          // [n_rows]
    const float* local_lse;    // [n_rows] or null
  };
  void AddRows(int memory_layer, const KeptRows& kept) const;

  compute::Device* device_;
  std::shared_ptr<const Generation> generation_;
  SearchOptions options_;
  int n_mem_layers_ = 0;
  std::shared_ptr<const ResidentEntries> entries_;  // null: nothing is stored
  std::vector<uint32_t> windows_;                   // allowed ones
  uint64_t n_tokens_ = 0;
  Buffer allowed_;  // bits of positions; of no size: all
  // A conversation's own windows: host blocks per memory layer, and all of them on the device.
  std::vector<std::vector<storage::Block>> session_;
  bool session_is_uploaded_ = true;
  int64_t n_session_tokens_ = 0;                       // on the device
  std::vector<Buffer> session_keys_, session_values_;  // [n_mem_layers]

  int64_t n_rows_ = 0;   // but for those of steps
  int64_t n_steps_ = 0;  // since the last ResetMass
  StepLog steps_;
  mutable int64_t n_logged_steps_ = 0;        // at most
  uint64_t recording_id_ = NewRecordingId();  // of what Attend does for a step
  static uint64_t NewRecordingId() {
    static std::atomic<uint64_t> n_ids = 0;
    return ++n_ids;
  }
  mutable std::deque<Kept> log_;
  mutable size_t log_bytes_ = 0;
  mutable absl::Status log_status_;
  mutable std::vector<absl::flat_hash_map<int64_t, float>> mass_;  // position → mass
};

absl::Status DeviceSearcher::Initialize() {
  ASSIGN_OR_RETURN(windows_, SelectWindows(*generation_, options_.scope));
  for (const uint32_t w : windows_) n_tokens_ += generation_->windows[w].n_tokens;
  if (!generation_->settings.has_value()) return absl::OkStatus();
  n_mem_layers_ = generation_->settings->n_mem_layers;
  mass_.resize(static_cast<size_t>(n_mem_layers_));
  if (generation_->windows.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(entries_, generation_->source->resident().Get(
                                 *device_, *generation_, options_.mode == SearchMode::kApproximate,
                                 options_.progress));
  std::vector<uint64_t> bits(static_cast<size_t>(entries_->n_allowed_words()));
  size_t n_allowed = 0;
  for (const uint32_t w : windows_) {
    const LiveWindow& window = generation_->windows[w];
    const auto begin = static_cast<size_t>(entries_->AllowedBitOf(w));
    ForEachOther(window.sinks, window.n_tokens, [&](uint32_t from, uint32_t to) {
      n_allowed += to - from;
      for (size_t p = begin + from; p < begin + to; ++p) bits[p / 64] |= uint64_t{1} << (p % 64);
    });
  }
  if (n_allowed == static_cast<size_t>(entries_->n_positions())) return absl::OkStatus();
  ASSIGN_OR_RETURN(allowed_, device_->Allocate(bits.size() * sizeof(uint64_t)));
  return device_->CopyFromHost(bits.data(), bits.size() * sizeof(uint64_t), allowed_.data<void>());
}

bool DeviceSearcher::Allows(Slot slot) const {
  const auto after = std::upper_bound(
      windows_.begin(), windows_.end(), slot,
      [this](Slot s, uint32_t w) { return s < generation_->windows[w].slot_begin; });
  if (after == windows_.begin()) return false;
  const LiveWindow& window = generation_->windows[*(after - 1)];
  return slot < window.slot_begin + window.n_tokens;
}

void DeviceSearcher::AddSessionWindow(model::EncodedWindow window) {
  const storage::StoreSettings& settings = *generation_->settings;
  std::vector<storage::Block>& blocks = session_.emplace_back();
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    blocks.push_back(
        ToBlock(window, layer, settings.n_kv_heads, settings.head_dim, settings.entry_type));
  }
  session_is_uploaded_ = false;
}

absl::Status DeviceSearcher::UploadSession() {
  if (session_is_uploaded_) return absl::OkStatus();
  const storage::StoreSettings& settings = *generation_->settings;
  n_session_tokens_ = 0;
  for (const auto& blocks : session_) n_session_tokens_ += blocks[0].n_tokens;
  session_keys_.clear();
  session_values_.clear();
  const size_t token_bytes =
      static_cast<size_t>(settings.head_dim) * EntryBytes(settings.entry_type);
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    for (const bool keys : {true, false}) {
      std::vector<std::byte> all(static_cast<size_t>(settings.n_kv_heads * n_session_tokens_) *
                                 token_bytes);
      int64_t begin = 0;
      for (const auto& blocks : session_) {
        const storage::Block& block = blocks[static_cast<size_t>(layer)];
        const auto* const from =
            static_cast<const std::byte*>((keys ? block.keys : block.values).data().address());
        const size_t n = static_cast<size_t>(block.n_tokens) * token_bytes;
        for (int64_t head = 0; head < settings.n_kv_heads; ++head) {
          std::copy_n(
              from + static_cast<size_t>(head) * n, n,
              all.data() + static_cast<size_t>(head * n_session_tokens_ + begin) * token_bytes);
        }
        begin += block.n_tokens;
      }
      ASSIGN_OR_RETURN(Buffer buffer, device_->Allocate(all.size()));
      RETURN_IF_ERROR(device_->CopyFromHost(all.data(), all.size(), buffer.data<void>()));
      (keys ? session_keys_ : session_values_).push_back(std::move(buffer));
    }
  }
  session_is_uploaded_ = true;
  recording_id_ = NewRecordingId();
  return absl::OkStatus();
}

std::vector<compute::CodedMemoryPart> DeviceSearcher::PartsOf(int memory_layer) const {
  std::vector<compute::CodedMemoryPart> parts;
  if (entries_ != nullptr) parts = entries_->Parts(memory_layer, allowed_.data<uint64_t>());
  if (n_session_tokens_ > 0) {
    const storage::StoreSettings& settings = *generation_->settings;
    const auto layer = static_cast<size_t>(memory_layer);
    const auto view = [&](const Buffer& buffer) {
      return ConstView(compute::DTypeOf(settings.entry_type), buffer.data<void>(),
                       {settings.n_kv_heads, n_session_tokens_, settings.head_dim});
    };
    parts.push_back(
        {.entries = {.keys = view(session_keys_[layer]), .values = view(session_values_[layer])},
         .codes = {}});
  }
  return parts;
}

absl::Status DeviceSearcher::Attend(const model::MemoryQuery& query, float* output, float* lse) {
  RETURN_IF_ERROR(options_.progress.CheckCancelled());
  const int64_t n_all = query.n_queries * query.n_heads;
  if (query.memory_layer == 0 && !query.is_step) n_rows_ += n_all;
  if (entries_ == nullptr && session_.empty()) {
    RETURN_IF_ERROR(device_->Fill(0.0f, n_all * query.head_dim, output));
    return device_->Fill(-std::numeric_limits<float>::infinity(), n_all, lse);
  }
  const storage::StoreSettings& settings = *generation_->settings;
  if (query.n_kv_heads != settings.n_kv_heads || query.head_dim != settings.head_dim ||
      query.memory_layer >= n_mem_layers_) {
    return absl::FailedPreconditionError(StrCat(
        "memory has ", n_mem_layers_, " layers of ", settings.n_kv_heads, " heads of ",
        settings.head_dim, ", the model asks layer ", query.memory_layer, " with ",
        query.n_kv_heads, " heads of ", query.head_dim, ": use the model that made the memory"));
  }
  RETURN_IF_ERROR(UploadSession());
  const int64_t n_keys = n_session_tokens_ + (entries_ != nullptr ? entries_->n_positions() : 0);
  const auto top_k = static_cast<int>(
      std::clamp<int64_t>(n_keys, 1, std::min(options_.top_k, compute::kMaxMemoryTopK)));
  const auto n_kept = static_cast<size_t>(n_all * top_k);
  Buffer own_positions, own_scores;
  int64_t* positions = nullptr;
  float* scores = nullptr;
  if (query.is_step) {
    RETURN_IF_ERROR(ReserveSteps(query, top_k));
    positions = steps_.kept.data<int64_t>();
    scores = reinterpret_cast<float*>(positions + n_kept);
  } else {
    ASSIGN_OR_RETURN(own_positions, device_->Allocate(n_kept * sizeof(int64_t)));
    ASSIGN_OR_RETURN(own_scores, device_->Allocate(n_kept * sizeof(float)));
    positions = own_positions.data<int64_t>();
    scores = own_scores.data<float>();
  }
  const std::vector<compute::CodedMemoryPart> parts = PartsOf(query.memory_layer);
  RETURN_IF_ERROR(
      Search({.queries = {query.queries, {query.n_queries, query.n_heads, query.head_dim}},
              .parts = parts,
              .n_candidates = NumCandidates(query.memory_layer, top_k),
              .top_k = top_k,
              .scale = query.scale,
              .output = {output, {query.n_queries, query.n_heads, query.head_dim}},
              .lse = {lse, {query.n_queries, query.n_heads}},
              .positions = positions,
              .scores = scores}));
  if (query.is_step) return LogStep(query, lse);
  return Log(query, top_k, std::move(own_positions), std::move(own_scores), lse);
}

absl::Status DeviceSearcher::BeginStep(uint64_t* recording_id) {
  *recording_id = 0;
  if (entries_ == nullptr && session_.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(options_.progress.CheckCancelled());
  RETURN_IF_ERROR(UploadSession());
  if (steps_.n_heads > 0 && n_logged_steps_ == steps_.capacity) RETURN_IF_ERROR(AddUp());
  ++n_logged_steps_;
  ++n_steps_;
  *recording_id = recording_id_;
  return absl::OkStatus();
}

absl::Status DeviceSearcher::ReserveSteps(const model::MemoryQuery& query, int top_k) {
  if (steps_.n_heads == query.n_heads && steps_.top_k == top_k) return absl::OkStatus();
  if (steps_.n_heads > 0) RETURN_IF_ERROR(AddUp());
  constexpr int64_t kMostSteps = 256;
  StepLog steps{.n_heads = query.n_heads, .top_k = top_k, .scale = query.scale};
  const size_t step_bytes = steps.row_bytes() * static_cast<size_t>(n_mem_layers_);
  steps.capacity = std::clamp<int64_t>(static_cast<int64_t>(kLogBytes / step_bytes), 1, kMostSteps);
  ASSIGN_OR_RETURN(steps.kept, device_->Allocate(steps.kept_bytes()));
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    ASSIGN_OR_RETURN(Buffer rows,
                     device_->Allocate(static_cast<size_t>(steps.capacity) * steps.row_bytes()));
    steps.rows.push_back(std::move(rows));
  }
  ASSIGN_OR_RETURN(steps.next_row, device_->Allocate(sizeof(int32_t)));
  steps_ = std::move(steps);
  RETURN_IF_ERROR(ForgetSteps());
  n_logged_steps_ = 1;  // the one that begins
  return absl::OkStatus();
}

absl::Status DeviceSearcher::LogStep(const model::MemoryQuery& query, const float* lse) {
  const auto lse_bytes = query.n_heads * static_cast<int64_t>(sizeof(float));
  const compute::AppendRowArgs::Piece pieces[] = {
      {steps_.kept.data<void>(), static_cast<int64_t>(steps_.kept_bytes())},
      {lse, lse_bytes},
      {query.local_lse, lse_bytes}};
  return compute::AppendRow(
      *device_, {.pieces = pieces,
                 .rows = steps_.rows[static_cast<size_t>(query.memory_layer)].data<void>(),
                 .n_rows = steps_.capacity,
                 .next_row = steps_.next_row.data<int32_t>(),
                 .advances = query.memory_layer == n_mem_layers_ - 1});
}

absl::Status DeviceSearcher::ForgetSteps() const {
  n_logged_steps_ = 0;
  if (steps_.n_heads == 0) return absl::OkStatus();
  static_assert(sizeof(float) == sizeof(int32_t));  // 0.0f is 0
  return device_->Fill(0.0f, 1, steps_.next_row.data<float>());
}

absl::Status DeviceSearcher::Search(const compute::CodedMemoryAttentionArgs& args) {
  if (entries_ != nullptr && entries_->uses_codes()) {
    return compute::CodedMemoryAttention(*device_, args);
  }
  std::vector<compute::MemoryPart> parts;
  for (const compute::CodedMemoryPart& part : args.parts) parts.push_back(part.entries);
  return compute::MemoryAttention(*device_, {.queries = args.queries,
                                             .parts = parts,
                                             .top_k = args.top_k,
                                             .scale = args.scale,
                                             .output = args.output,
                                             .lse = args.lse,
                                             .positions = args.positions,
                                             .scores = args.scores});
}

absl::Status DeviceSearcher::Log(const model::MemoryQuery& query, int top_k, Buffer positions,
                                 Buffer scores, const float* lse) {
  const int64_t n_rows = query.n_queries * query.n_heads;
  const auto lse_bytes = static_cast<size_t>(n_rows) * sizeof(float);
  Kept kept{.memory_layer = query.memory_layer,
            .n_rows = n_rows,
            .top_k = top_k,
            .scale = query.scale,
            .positions = std::move(positions),
            .scores = std::move(scores),
            .lse = {},
            .local_lse = {},
            .has_local_lse = query.local_lse != nullptr};
  ASSIGN_OR_RETURN(kept.lse, device_->Allocate(lse_bytes));
  RETURN_IF_ERROR(device_->Copy(lse, lse_bytes, kept.lse.data<void>()));
  if (kept.has_local_lse) {
    ASSIGN_OR_RETURN(kept.local_lse, device_->Allocate(lse_bytes));
    RETURN_IF_ERROR(device_->Copy(query.local_lse, lse_bytes, kept.local_lse.data<void>()));
  }
  log_bytes_ += kept.positions.size_bytes() + kept.scores.size_bytes() + 2 * lse_bytes;
  log_.push_back(std::move(kept));
  return log_bytes_ > kLogBytes ? AddUp() : absl::OkStatus();
}

absl::Status DeviceSearcher::AddUp() const {
  std::vector<int64_t> positions;
  std::vector<float> scores, lse, local_lse;
  for (; !log_.empty(); log_.pop_front()) {
    const Kept& kept = log_.front();
    const auto copy = [&](const Buffer& from, size_t n, auto* to) {
      to->resize(n);
      return device_->CopyToHost(from.data<void>(), n * sizeof((*to)[0]), to->data());
    };
    const auto n_rows = static_cast<size_t>(kept.n_rows);
    const auto n = n_rows * static_cast<size_t>(kept.top_k);
    RETURN_IF_ERROR(copy(kept.positions, n, &positions));
    RETURN_IF_ERROR(copy(kept.scores, n, &scores));
    RETURN_IF_ERROR(copy(kept.lse, n_rows, &lse));
    if (kept.has_local_lse) RETURN_IF_ERROR(copy(kept.local_lse, n_rows, &local_lse));
    AddRows(kept.memory_layer, {.n_rows = n_rows,
                                .top_k = kept.top_k,
                                .scale = kept.scale,
                                .positions = positions.data(),
                                .scores = scores.data(),
                                .lse = lse.data(),
                                .local_lse = kept.has_local_lse ? local_lse.data() : nullptr});
  }
  log_bytes_ = 0;
  return AddUpSteps();
}

absl::Status DeviceSearcher::AddUpSteps() const {
  if (steps_.n_heads == 0 || n_logged_steps_ == 0) return absl::OkStatus();
  // Steps that failed half-way are counted on the host alone.
  int32_t n_rows = 0;
  RETURN_IF_ERROR(device_->CopyToHost(steps_.next_row.data<void>(), sizeof(n_rows), &n_rows));
  const auto n_heads = static_cast<size_t>(steps_.n_heads);
  const size_t row_bytes = steps_.row_bytes();
  std::vector<std::byte> rows(static_cast<size_t>(n_rows) * row_bytes);
  for (int layer = 0; layer < n_mem_layers_ && n_rows > 0; ++layer) {
    RETURN_IF_ERROR(device_->CopyToHost(steps_.rows[static_cast<size_t>(layer)].data<void>(),
                                        rows.size(), rows.data()));
    for (size_t row = 0; row < static_cast<size_t>(n_rows); ++row) {
      // Rows are whole words of four bytes, not of eight.
      std::vector<int64_t> positions(steps_.n_kept());
      const std::byte* from = rows.data() + row * row_bytes;
      std::memcpy(positions.data(), from, positions.size() * sizeof(int64_t));
      const auto* const scores =
          reinterpret_cast<const float*>(from + positions.size() * sizeof(int64_t));
      AddRows(layer, {.n_rows = n_heads,
                      .top_k = steps_.top_k,
                      .scale = steps_.scale,
                      .positions = positions.data(),
                      .scores = scores,
                      .lse = scores + steps_.n_kept(),
                      .local_lse = scores + steps_.n_kept() + n_heads});
    }
  }
  return ForgetSteps();
}

void DeviceSearcher::AddRows(int memory_layer, const KeptRows& kept) const {
  const int64_t n_stored = entries_ != nullptr ? entries_->n_positions() : 0;
  auto& mass = mass_[static_cast<size_t>(memory_layer)];
  const auto top_k = static_cast<size_t>(kept.top_k);
  for (size_t row = 0; row < kept.n_rows; ++row) {
    const float total = kept.local_lse != nullptr
                            ? compute::LogAddExp(kept.lse[row], kept.local_lse[row])
                            : kept.lse[row];
    for (size_t j = row * top_k; j < (row + 1) * top_k; ++j) {
      if (kept.positions[j] < 0) break;
      if (kept.positions[j] >= n_stored) continue;  // the conversation's own
      mass[kept.positions[j]] += std::exp(kept.scores[j] * kept.scale - total);
    }
  }
}

std::vector<SlotMass> DeviceSearcher::Mass() const {
  // An error of the device comes up with the next op, too.
  if (log_status_.ok()) log_status_ = AddUp();
  absl::flat_hash_map<int64_t, SlotMass> all;
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    for (const auto& [position, mass] : mass_[static_cast<size_t>(layer)]) {
      SlotMass& entry = all[position];
      entry.mass.resize(static_cast<size_t>(n_mem_layers_));
      entry.mass[static_cast<size_t>(layer)] = mass;
    }
  }
  std::vector<SlotMass> result;
  result.reserve(all.size());
  for (auto& [position, entry] : all) {
    entry.slot = entries_->SlotAt(position);
    result.push_back(std::move(entry));
  }
  // A map's order differs from process to process, and with it the last digits of sums.
  std::sort(result.begin(), result.end(),
            [](const SlotMass& a, const SlotMass& b) { return a.slot < b.slot; });
  return result;
}

}  // namespace

bool CanSearchOnDevice(const compute::Device& device, const SearchOptions& options) {
  return !device.is_host_memory() && options.mode != SearchMode::kDense && !options.audit &&
         options.top_k <= compute::kMaxMemoryTopK;
}

absl::StatusOr<std::unique_ptr<MemorySearcher>> CreateDeviceSearcher(
    compute::Device* device, std::shared_ptr<const Generation> generation,
    const SearchOptions& options) {
  auto searcher = std::make_unique<DeviceSearcher>(device, std::move(generation), options);
  RETURN_IF_ERROR(searcher->Initialize());
  return searcher;
}

}  // namespace fovea::memory
