#include "train/trainer.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <deque>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/strings.h"
#include "texts/random.h"
#include "train/losses.h"

namespace fovea::train {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;
using torch::Tensor;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A checkpoint: "fovtrain", the version, the steps, the number of values, the values (float32), and
// XXH3-64 of all before it.
constexpr std::string_view kCheckpointMark = "fovtrain";
constexpr uint64_t kCheckpointVersion = 1;

std::string EncodeCheckpoint(const Tensor& state, int64_t n_steps) {
  std::string bytes(kCheckpointMark);
  const auto add = [&](uint64_t number) {
    bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  add(kCheckpointVersion);
  add(static_cast<uint64_t>(n_steps));
  add(static_cast<uint64_t>(state.numel()));
  bytes.append(static_cast<const char*>(state.data_ptr()), state.nbytes());
  add(Checksum64(bytes));
  return bytes;
}

struct Checkpoint {
  int64_t n_steps = 0;
  Tensor state;
};

absl::StatusOr<Checkpoint> ReadCheckpoint(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  constexpr size_t kHead = 8 + 3 * sizeof(uint64_t);
  const auto number = [&](size_t at) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  };
  const bool has_head = bytes.size() >= kHead + sizeof(uint64_t) &&
                        bytes.compare(0, kCheckpointMark.size(), kCheckpointMark) == 0 &&
                        number(8) == kCheckpointVersion;
  const uint64_t n = has_head ? number(24) : 0;
  if (!has_head || n % 3 != 0 || n > bytes.size() / sizeof(float) ||
      bytes.size() != kHead + n * sizeof(float) + sizeof(uint64_t) ||
      number(bytes.size() - sizeof(uint64_t)) !=
          Checksum64(std::string_view(bytes).substr(0, bytes.size() - sizeof(uint64_t)))) {
    return absl::DataLossError(StrCat(path, ": not a whole checkpoint of a training run"));
  }
  Checkpoint checkpoint;
  checkpoint.n_steps = static_cast<int64_t>(number(16));
  checkpoint.state = torch::empty({3, static_cast<int64_t>(n / 3)}, torch::kFloat32);
  std::memcpy(checkpoint.state.data_ptr(), bytes.data() + kHead, n * sizeof(float));
  return checkpoint;
}

std::filesystem::path CheckpointOf(const TrainOptions& options) {
  return options.folder / "checkpoint";
}

class Trainer {
 public:
  Trainer(TrainableModel* model, const BatchSource& batches, const TrainOptions& options,
          const WriteTrained& write, const Progress& progress,
          const std::function<void(const TrainReport&)>& on_report)
      : model_(*model),
        batches_(batches),
        options_(options),
        write_(write),
        progress_(progress),
        on_report_(on_report),
        optimizer_(model->parameters(), options.optimizer) {}

  absl::StatusOr<TrainResult> Run() {
    RETURN_IF_ERROR(Prepare());
    began_at_ = Clock::now();
    reported_at_ = saved_at_ = began_at_;
    absl::Status ended;
    while (Progressed() < 1.0) {
      ended = progress_.CheckCancelled();
      if (!ended.ok()) break;
      ended = DoStep();
      if (!ended.ok()) break;
    }
    ahead_.clear();  // waits for what is being made
    // What was not looked at may be no number.
    if (absl::IsCancelled(ended) || ended.ok()) RETURN_IF_ERROR(Report());
    if (absl::IsCancelled(ended) || ended.ok()) RETURN_IF_ERROR(Save());
    RETURN_IF_ERROR(ended);
    TrainResult result;
    result.n_steps = step_;
    result.seconds = SecondsSince(began_at_);
    result.tokens_per_s = static_cast<double>(n_tokens_) / std::max(result.seconds, 1e-9);
    if (write_) {
      ASSIGN_OR_RETURN(result.written, write_(model_, options_.folder));
    }
    return result;
  }

 private:
  std::filesystem::path checkpoint_path() const { return CheckpointOf(options_); }
  std::filesystem::path metrics_path() const { return options_.folder / "metrics.jsonl"; }

  absl::Status Prepare() {
    RETURN_IF_ERROR(CheckRun(options_, &batches_));
    RETURN_IF_ERROR(CreateDirectories(options_.folder));
    if (!options_.resumes) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, ReadCheckpoint(checkpoint_path()));
    step_ = checkpoint.n_steps;
    return Annotate(optimizer_.SetState(checkpoint.state, step_), checkpoint_path().string());
  }

  double Progressed() const {
    return options_.n_steps > 0 ? static_cast<double>(step_) / static_cast<double>(options_.n_steps)
                                : SecondsSince(began_at_) / options_.n_seconds;
  }

  // Of the step that comes `later` steps after this one.
  int64_t ContextsOf(int64_t step, double progressed) const {
    texts::Random random(batches_.seed() ^ 0x10ca1, static_cast<uint64_t>(step));
    if (random.Chance(options_.local_share)) return 0;
    const double progress = options_.n_steps > 0
                                ? static_cast<double>(step) / static_cast<double>(options_.n_steps)
                                : progressed;
    return options_.contexts.At(progress);
  }

  absl::StatusOr<TrainingBatch> NextBatch() {
    const int half = static_cast<int>(std::thread::hardware_concurrency() / 2);
    const auto most = static_cast<size_t>(options_.n_batch_threads > 0 ? options_.n_batch_threads
                                                                       : std::clamp(half, 1, 8));
    while (ahead_.size() < most) {
      const int64_t step = step_ + static_cast<int64_t>(ahead_.size());
      const int64_t d = ContextsOf(step, Progressed());
      ahead_.push_back(std::async(std::launch::async, [this, step, d] {
        return batches_.Make(static_cast<uint64_t>(step), d);
      }));
    }
    const Clock::time_point waits_from = Clock::now();
    absl::StatusOr<TrainingBatch> batch = ahead_.front().get();
    waited_s_ += SecondsSince(waits_from);
    ahead_.pop_front();
    return batch;
  }

  absl::Status DoStep() {
    ASSIGN_OR_RETURN(const TrainingBatch batch, NextBatch());
    const auto device = model_.options().device;
    const bool reports = (step_ + 1) % options_.log_every == 0;
    const bool has_memory = !batch.seen.empty();
    const double scale = 1.0 / std::sqrt(static_cast<double>(model_.config().head_dim));
    const TrainableModel::Weights weights = model_.Compose();
    ContextEntries entries;
    SeenMemory memory;
    std::optional<MassLoss> mass, distraction;
    MassProbe probe;
    if (has_memory) {
      if (batch.contexts.defined()) entries = model_.Encode(weights, batch.contexts.to(device));
      memory = {batch.contexts.defined() ? &entries : nullptr, &batch.seen};
      mass.emplace(batch.asks, options_.mass_layers);
      distraction.emplace(batch.own, AllMemoryLayers());
      const MassProbe observe = mass->Probe(scale);
      const MassProbe measure = distraction->Probe(scale);
      const bool learns = options_.mass_weight > 0.0 && !batch.asks.empty();
      probe = [=](size_t layer, const Tensor& queries, const Tensor& keys,
                  const SeenContexts& seen) {
        if (learns) observe(layer, queries, keys, seen);
        if (!reports) return;
        torch::NoGradGuard guard;
        measure(layer, queries.detach(), keys.detach(), seen);
      };
    }
    const Tensor hidden =
        model_.Forward(weights, batch.queries.to(device), has_memory ? &memory : nullptr,
                       has_memory ? &probe : nullptr);
    const Tensor next = NextTokenLoss(model_, hidden, batch.targets, batch.weights);
    Tensor loss = next;
    Tensor mass_loss;
    if (mass.has_value()) mass_loss = mass->Mean();
    if (mass_loss.defined()) loss = loss + options_.mass_weight * mass_loss;
    Tensor distill_loss;
    if (options_.distill_weight > 0.0 && !batch.taught.empty()) {
      // The same weights: what the model says with the passage before it, without the memory.
      Tensor teacher;
      {
        torch::NoGradGuard guard;
        teacher = model_.Forward(weights, batch.teacher.to(device), nullptr, nullptr);
      }
      distill_loss = DistillationLoss(model_, hidden, teacher, batch.taught);
      loss = loss + options_.distill_weight * distill_loss;
    }
    loss.backward();
    last_.learning_rate = options_.learning_rate.At(step_, Progressed());
    last_norm_ = optimizer_.Step(last_.learning_rate);
    last_loss_ = next.detach();
    last_.n_targets = batch.targets.ne(-100).sum().item<int64_t>();
    last_distill_loss_ = distill_loss.defined() ? distill_loss.detach() : Tensor();
    last_mass_loss_ = mass_loss.defined() ? mass_loss.detach() : Tensor();
    last_.d = 0;
    for (const auto& contexts : batch.seen) {
      last_.d = std::max(last_.d, static_cast<int64_t>(contexts.size()));
    }
    if (reports) {
      last_accuracy_ = NextTokenAccuracy(model_, hidden, batch.targets);
      last_.mass = mass.has_value() ? mass->MeanMass() : std::vector<double>();
      last_.r_d = distraction.has_value() ? distraction->MeanMass() : std::vector<double>();
    }
    n_tokens_ += batch.queries.numel() + (batch.contexts.defined() ? batch.contexts.numel() : 0);
    ++step_;
    RETURN_IF_ERROR(progress_.Report(
        {.stage = "train",
         .done = options_.n_steps > 0 ? step_ : static_cast<int64_t>(SecondsSince(began_at_)),
         .total =
             options_.n_steps > 0 ? options_.n_steps : static_cast<int64_t>(options_.n_seconds),
         .unit = options_.n_steps > 0 ? "steps" : "s"}));
    if (!reports) return absl::OkStatus();
    RETURN_IF_ERROR(Report());
    return SecondsSince(saved_at_) >= options_.checkpoint_every_s ? Save() : absl::OkStatus();
  }

  std::vector<int64_t> AllMemoryLayers() const {
    std::vector<int64_t> layers(model_.options().mem_layers.size());
    for (size_t i = 0; i < layers.size(); ++i) layers[i] = static_cast<int64_t>(i);
    return layers;
  }

  absl::Status Report() {
    if (!last_loss_.defined() || reported_step_ == step_) return absl::OkStatus();
    last_.step = step_;
    last_.progress = Progressed();
    last_.seconds = SecondsSince(began_at_);
    last_.loss = last_loss_.item<double>();
    last_.accuracy = last_accuracy_.defined() ? last_accuracy_.item<double>() : 0.0;
    last_.mass_loss = last_mass_loss_.defined() ? last_mass_loss_.item<double>() : 0.0;
    last_.distill_loss = last_distill_loss_.defined() ? last_distill_loss_.item<double>() : 0.0;
    last_.gradient_norm = last_norm_.item<double>();
    last_.tokens_per_s = static_cast<double>(n_tokens_ - reported_tokens_) /
                         std::max(SecondsSince(reported_at_), 1e-9);
    last_.waited_share = waited_s_ / std::max(SecondsSince(reported_at_), 1e-9);
    waited_s_ = 0.0;
    reported_at_ = Clock::now();
    reported_tokens_ = n_tokens_;
    reported_step_ = step_;
    if (!std::isfinite(last_.loss) || !std::isfinite(last_.gradient_norm)) {
      std::error_code error;
      const bool has_checkpoint = std::filesystem::exists(checkpoint_path(), error);
      return absl::DataLossError(
          StrCat("step ", step_, ": the loss or its gradient is not a number; ",
                 has_checkpoint ? StrCat(checkpoint_path(), " has the last good one")
                                : std::string("there is no checkpoint yet"),
                 "; a lower learning rate may help"));
    }
    RETURN_IF_ERROR(AppendMetrics());
    if (on_report_) on_report_(last_);
    return absl::OkStatus();
  }

  absl::Status AppendMetrics() const {
    const json line = {{"step", last_.step},
                       {"progress", last_.progress},
                       {"seconds", last_.seconds},
                       {"d", last_.d},
                       {"targets", last_.n_targets},
                       {"loss", last_.n_targets > 0 ? json(last_.loss) : json()},
                       {"accuracy", last_.n_targets > 0 ? json(last_.accuracy) : json()},
                       {"mass_loss", last_.mass_loss},
                       {"distill_loss", last_.distill_loss},
                       {"mass", last_.mass},
                       {"r_d", last_.r_d},
                       {"gradient_norm", last_.gradient_norm},
                       {"learning_rate", last_.learning_rate},
                       {"tokens_per_s", last_.tokens_per_s},
                       {"waited_share", last_.waited_share}};
    std::FILE* file = std::fopen(metrics_path().c_str(), "ab");
    if (file == nullptr) return ErrnoToStatus(errno, "open", metrics_path());
    const std::string text = line.dump() + "\n";
    const bool is_written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
    const int error = errno;
    if (std::fclose(file) != 0 || !is_written) return ErrnoToStatus(error, "write", metrics_path());
    return absl::OkStatus();
  }

  absl::Status Save() {
    saved_at_ = Clock::now();
    return WriteFileAtomic(checkpoint_path(), EncodeCheckpoint(optimizer_.State(), step_));
  }

  TrainableModel& model_;
  const BatchSource& batches_;
  const TrainOptions& options_;
  const WriteTrained& write_;
  const Progress& progress_;
  const std::function<void(const TrainReport&)>& on_report_;
  Optimizer optimizer_;

  std::deque<std::future<absl::StatusOr<TrainingBatch>>> ahead_;
  Clock::time_point began_at_, reported_at_, saved_at_;
  int64_t step_ = 0;
  int64_t reported_step_ = -1;
  int64_t n_tokens_ = 0;  // of this process
  int64_t reported_tokens_ = 0;
  double waited_s_ = 0.0;  // for batches, since the last report
  TrainReport last_;
  Tensor last_loss_, last_accuracy_, last_mass_loss_, last_distill_loss_, last_norm_;
};

}  // namespace

absl::Status CheckRun(const TrainOptions& options, const BatchSource* batches) {
  if ((options.n_steps > 0) == (options.n_seconds > 0.0)) {
    return absl::InvalidArgumentError("a run is of a number of steps or of seconds: name one");
  }
  if (batches != nullptr && options.contexts.largest() > batches->most_contexts()) {
    return absl::InvalidArgumentError(StrCat(
        options.contexts.largest(), " contexts are to be seen at once, and a batch has ",
        batches->most_contexts(), ": make the batch larger (--batch), or see fewer (--contexts)"));
  }
  std::error_code error;
  const bool is_there = std::filesystem::exists(CheckpointOf(options), error);
  if (is_there && !options.resumes) {
    return absl::FailedPreconditionError(
        StrCat(options.folder, " holds a run: --resume goes on with it, or name another folder"));
  }
  if (!is_there && options.resumes) {
    return absl::NotFoundError(
        StrCat(CheckpointOf(options), ": no checkpoint to go on from: leave --resume out"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TrainResult> Train(TrainableModel* model, const BatchSource& batches,
                                  const TrainOptions& options, const WriteTrained& write,
                                  const Progress& progress,
                                  const std::function<void(const TrainReport&)>& on_report) {
  return Trainer(model, batches, options, write, progress, on_report).Run();
}

}  // namespace fovea::train
