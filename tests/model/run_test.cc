// Runs of a model: on a device with memory of its own, of several sequences at once, by several
// threads, with local contexts of either type.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <thread>

#include "compute/device.h"
#include "golden_files.h"
#include "model/dense_memory.h"
#include "model/transformer.h"
#include "tests/compute/guarded_device.h"
#include "tests/model/weights/file_writers.h"

namespace fovea::model {
namespace {

const std::filesystem::path kData = FOVEA_SOURCE_DIR "/tests/model/data/transformer";

// Sums of few products in float32, in another order, through a few layers.
constexpr float kTolerance = 1e-3f;

std::unique_ptr<compute::Device> Cpu(int n_threads = 1) {
  auto device = compute::Device::Create("cpu", n_threads);
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

std::unique_ptr<Transformer> Load(compute::Device* device, const std::string& name,
                                  const std::vector<int>& mem_layers = {1}) {
  LoadOptions options;
  options.model = std::filesystem::exists(kData / name) ? kData / name : kData / (name + ".gguf");
  options.mem_layers = mem_layers;
  auto model = Transformer::Load(device, options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::vector<int32_t> Prompt(const std::string& name) {
  return ReadGoldenJson(kData / (name + ".json"))["prompt_ids"].get<std::vector<int32_t>>();
}

float Difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = a.size() == b.size() ? 0.0f : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

// A memory on a device of its own that the host shares.
class HostMemory final : public MemorySource {
 public:
  explicit HostMemory(DenseMemory* memory) : memory_(memory) {}
  absl::Status Attend(const MemoryQuery& query, float* output, float* lse) override {
    ++n_calls;
    return memory_->Attend(query, output, lse);
  }
  int n_calls = 0;

 private:
  DenseMemory* memory_;
};

// What a model says after a document that went to the memory: all logits of a prompt, then those of
// two steps.
std::vector<float> Ask(Transformer& model, const std::vector<int32_t>& ids, MemorySource* memory) {
  LocalContext context;
  std::vector<float> all;
  const std::span<const int32_t> prompt(ids);
  for (const auto part : {prompt.first(ids.size() - 2), prompt.last(2).first(1), prompt.last(1)}) {
    std::vector<float> logits;
    const absl::Status status = model.Forward(part, &context, memory, &logits, true);
    EXPECT_TRUE(status.ok()) << status;
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

MemoryEntries Remember(Transformer& model, const std::vector<int32_t>& ids) {
  LocalContext window = LocalContext::ForWindow({});
  EXPECT_TRUE(model.Forward(ids, &window, nullptr, nullptr).ok());
  absl::StatusOr<MemoryEntries> entries = model.Entries(*model.device(), window);
  EXPECT_TRUE(entries.ok()) << entries.status();
  return *std::move(entries);
}

class RunTest : public testing::TestWithParam<std::string> {};

TEST_P(RunTest, ADeviceWithMemoryOfItsOwnGivesTheSameLogits) {
  const std::vector<int32_t> ids = Prompt(GetParam());
  const std::vector<int32_t> document(ids.rbegin(), ids.rend());
  const auto cpu = Cpu();
  compute::GuardedDevice guarded(1);
  const auto model = Load(cpu.get(), GetParam());
  const auto guarded_model = Load(&guarded, GetParam());
  EXPECT_EQ(Ask(*guarded_model, ids, nullptr), Ask(*model, ids, nullptr));

  const MemoryEntries entries = Remember(*model, document);
  const MemoryEntries guarded_entries = Remember(*guarded_model, document);
  EXPECT_EQ(guarded_entries.keys, entries.keys);
  EXPECT_EQ(guarded_entries.values, entries.values);
  DenseMemory memory(cpu.get(), EntryType::kFloat32);
  DenseMemory guarded_memory(&guarded, EntryType::kFloat32);
  ASSERT_TRUE(memory.Append(entries).ok());
  ASSERT_TRUE(guarded_memory.Append(entries).ok());
  const std::vector<float> with_memory = Ask(*model, ids, &memory);
  EXPECT_NE(with_memory, Ask(*model, ids, nullptr)) << "the memory has no effect";
  EXPECT_EQ(Ask(*guarded_model, ids, &guarded_memory), with_memory);
  // Queries and partials go to the host and back.
  HostMemory host_memory(&memory);
  EXPECT_EQ(Ask(*guarded_model, ids, &host_memory), with_memory);
  EXPECT_EQ(host_memory.n_calls, 3);
  DenseMemory empty(&guarded, EntryType::kFloat32);
  EXPECT_EQ(Ask(*guarded_model, ids, &empty), Ask(*model, ids, nullptr));

  const std::vector<WindowTokens> windows = {{{}, document}, {std::span(document).first(7), ids}};
  const auto encoded = model->Encode(windows);
  const auto guarded_encoded = guarded_model->Encode(windows);
  ASSERT_TRUE(encoded.ok() && guarded_encoded.ok()) << encoded.status();
  for (size_t w = 0; w < windows.size(); ++w) {
    for (const auto part : {&EncodedWindow::keys, &EncodedWindow::values}) {
      const EntryVector& want = ((*encoded)[w].*part)[0];
      const EntryVector& got = ((*guarded_encoded)[w].*part)[0];
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i], want[i]);
    }
  }
}

// A memory that lets its steps be recorded, and counts what it is asked.
class StepMemory final : public MemorySource {
 public:
  explicit StepMemory(DenseMemory* memory) : memory_(memory) {}
  MemoryPlace place() const override { return MemoryPlace::kDevice; }
  absl::Status BeginStep(uint64_t* recording_id) override {
    ++n_steps;
    *recording_id = is_always_another ? static_cast<uint64_t>(n_steps) : id;
    return absl::OkStatus();
  }
  absl::Status Attend(const MemoryQuery& query, float* output, float* lse) override {
    n_step_calls += query.is_step ? 1 : 0;
    ++n_calls;
    return memory_->Attend(query, output, lse);
  }
  int n_calls = 0;
  uint64_t id = 1;
  bool is_always_another = false;  // no step is as the one before
  int n_steps = 0;
  int n_step_calls = 0;

 private:
  DenseMemory* memory_;
};

// Steps of one token are recorded where recording pays: a context that grows, one that is cut and
// goes on, and two that take turns give what they give elsewhere, greedy ids included.
TEST_P(RunTest, RecordedStepsGiveTheSameTokens) {
  const std::vector<int32_t> ids = Prompt(GetParam());
  const auto cpu = Cpu();
  compute::GuardedDevice guarded(1);
  const auto model = Load(cpu.get(), GetParam());
  const auto guarded_model = Load(&guarded, GetParam());
  DenseMemory memory(cpu.get(), EntryType::kFloat32);
  DenseMemory guarded_memory(&guarded, EntryType::kFloat32);
  ASSERT_TRUE(memory.Append(Remember(*model, {ids.rbegin(), ids.rend()})).ok());
  ASSERT_TRUE(guarded_memory.Append(Remember(*guarded_model, {ids.rbegin(), ids.rend()})).ok());
  StepMemory steps(&guarded_memory);

  const auto generate = [&](Transformer& a_model, MemorySource* a_memory, bool wants_logits) {
    std::vector<int32_t> tokens;
    std::vector<float> all;
    LocalContext contexts[2] = {LocalContext(), LocalContext(compute::DType::kBF16)};
    Workspace workspace;
    for (size_t c = 0; c < 2; ++c) {
      const Sequence prompt{.ids = std::span(ids).first(9 + c), .context = &contexts[c]};
      EXPECT_TRUE(a_model.Run(*a_model.device(), {&prompt, 1}, &workspace).ok());
    }
    int32_t id = ids.back();
    for (int step = 0; step < 24; ++step) {
      if (step == 8) contexts[0].Truncate(5);
      std::vector<float> logits;
      const Sequence sequence{.ids = {&id, 1},
                              .context = &contexts[step < 16 ? 0 : step % 2],
                              .memory = step < 4 || step >= 20 ? nullptr : a_memory,
                              .logits = wants_logits ? &logits : nullptr,
                              .best_id = &id};
      const absl::Status status = a_model.Run(*a_model.device(), {&sequence, 1}, &workspace);
      EXPECT_TRUE(status.ok()) << status;
      tokens.push_back(id);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return std::pair(tokens, all);
  };
  const auto want = generate(*model, &memory, true);
  EXPECT_EQ(generate(*guarded_model, &steps, true), want);
  EXPECT_EQ(steps.n_steps, 16);
  EXPECT_EQ(steps.n_step_calls, 16) << "a guarded device's recording asks again";
  EXPECT_EQ(generate(*guarded_model, &steps, false).first, want.first);
  // A memory that cannot be recorded: what lies before and after its layer is, in the steps with it
  // that follow one of the same context.
  constexpr int kStepsThatFollow = 12;
  const int at_first = guarded.n_replays();
  EXPECT_EQ(generate(*guarded_model, &steps, true), want);
  const int n_whole = guarded.n_replays() - at_first;
  steps.id = 0;
  steps.n_calls = 0;
  EXPECT_EQ(generate(*guarded_model, &steps, true), want);
  EXPECT_EQ(steps.n_calls, 16);
  EXPECT_EQ(guarded.n_replays() - at_first - n_whole, n_whole + kStepsThatFollow);
}

// Recorded as a whole, in pieces around the memory, and not at all: the same logits, bit for bit.
void ExpectStepsAreTheSameHoweverRecorded(compute::Device& device, const std::string& name) {
  const auto model = Load(&device, name, {0, 1});
  const std::vector<int32_t> ids = Prompt(name);
  DenseMemory memory(&device, EntryType::kFloat32);
  ASSERT_TRUE(memory.Append(Remember(*model, {ids.rbegin(), ids.rend()})).ok());
  StepMemory steps(&memory);
  const auto generate = [&] {
    LocalContext context;
    Workspace workspace;
    std::vector<float> all, logits;
    int32_t id = ids.back();
    for (int step = 0; step < 12; ++step) {
      const Sequence sequence{.ids = step == 0 ? std::span(ids) : std::span<const int32_t>(&id, 1),
                              .context = &context,
                              .memory = &steps,
                              .logits = &logits,
                              .best_id = &id};
      const absl::Status status = model->Run(device, {&sequence, 1}, &workspace);
      EXPECT_TRUE(status.ok()) << status;
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  };
  const std::vector<float> whole = generate();
  for (const float x : whole) ASSERT_TRUE(std::isfinite(x));
  steps.id = 0;
  EXPECT_EQ(generate(), whole) << "in pieces";
  steps.is_always_another = true;
  EXPECT_EQ(generate(), whole) << "not recorded";
}

TEST_P(RunTest, StepsAreTheSameHoweverRecorded) {
  compute::GuardedDevice guarded(1);
  ExpectStepsAreTheSameHoweverRecorded(guarded, GetParam());
}

TEST_P(RunTest, StepsOnAGpuAreTheSameHoweverRecorded) {
  auto gpu = compute::Device::Create("cuda", 1);
  if (absl::IsUnimplemented(gpu.status()) || absl::IsUnavailable(gpu.status())) {
    GTEST_SKIP() << std::string(gpu.status().message());
  }
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  ExpectStepsAreTheSameHoweverRecorded(**gpu, GetParam());
}

// Prompts, steps, a memory, and the entries of windows.
TEST_P(RunTest, AGpuGivesWhatTheCpuGives) {
  auto created = compute::Device::Create("cuda", 1);
  if (absl::IsUnimplemented(created.status()) || absl::IsUnavailable(created.status())) {
    GTEST_SKIP() << std::string(created.status().message());
  }
  ASSERT_TRUE(created.ok()) << created.status();
  compute::Device& gpu = **created;
  const std::vector<int32_t> ids = Prompt(GetParam());
  const std::vector<int32_t> document(ids.rbegin(), ids.rend());
  const auto cpu = Cpu();
  const auto model = Load(cpu.get(), GetParam());
  const auto gpu_model = Load(&gpu, GetParam());
  EXPECT_LT(Difference(Ask(*gpu_model, ids, nullptr), Ask(*model, ids, nullptr)), kTolerance);

  const MemoryEntries entries = Remember(*model, document);
  const MemoryEntries gpu_entries = Remember(*gpu_model, document);
  EXPECT_LT(Difference(gpu_entries.keys[0], entries.keys[0]), kTolerance);
  EXPECT_LT(Difference(gpu_entries.values[0], entries.values[0]), kTolerance);
  DenseMemory memory(cpu.get(), EntryType::kFloat32);
  DenseMemory gpu_memory(&gpu, EntryType::kFloat32);
  ASSERT_TRUE(memory.Append(entries).ok());
  ASSERT_TRUE(gpu_memory.Append(gpu_entries).ok());
  const std::vector<float> with_memory = Ask(*model, ids, &memory);
  EXPECT_LT(Difference(Ask(*gpu_model, ids, &gpu_memory), with_memory), kTolerance);
  HostMemory host_memory(&memory);
  EXPECT_LT(Difference(Ask(*gpu_model, ids, &host_memory), with_memory), kTolerance);

  const std::vector<WindowTokens> windows = {{{}, document}, {std::span(document).first(7), ids}};
  const auto encoded = model->Encode(windows);
  const auto gpu_encoded = gpu_model->Encode(windows);
  ASSERT_TRUE(encoded.ok() && gpu_encoded.ok()) << gpu_encoded.status();
  for (size_t w = 0; w < windows.size(); ++w) {
    for (const auto part : {&EncodedWindow::keys, &EncodedWindow::values}) {
      const EntryVector& want = ((*encoded)[w].*part)[0];
      const EntryVector& got = ((*gpu_encoded)[w].*part)[0];
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < want.size(); ++i) {
        // Both in bfloat16.
        const auto number = static_cast<float>(want[i]);
        ASSERT_NEAR(static_cast<float>(got[i]), number, std::abs(number) * 0x1p-7f + kTolerance);
      }
    }
  }
}

TEST_P(RunTest, SequencesOfARunAreAsEachByItself) {
  const std::vector<int32_t> ids = Prompt(GetParam());
  const std::span<const int32_t> all(ids);
  const auto cpu = Cpu(2);
  const auto model = Load(cpu.get(), GetParam());
  DenseMemory memory(cpu.get(), EntryType::kFloat32);
  ASSERT_TRUE(memory.Append(Remember(*model, {ids.rbegin(), ids.rend()})).ok());
  // Two calls each: contexts of different lengths go on. The second has a memory, the third a
  // context in bfloat16 and no logits of its first call.
  const std::span<const int32_t> parts[3][2] = {{all.first(20), all.subspan(20, 1)},
                                                {all.first(3), all.subspan(3, 15)},
                                                {all.first(30), all.subspan(30, 2)}};
  const auto make_context = [](size_t i) {
    return LocalContext(i == 2 ? compute::DType::kBF16 : compute::DType::kF32);
  };
  std::vector<LocalContext> together, alone;
  for (size_t i = 0; i < 3; ++i) {
    together.push_back(make_context(i));
    alone.push_back(make_context(i));
  }
  Workspace workspace;
  for (size_t call = 0; call < 2; ++call) {
    std::vector<float> logits[3];
    std::vector<Sequence> sequences;
    for (size_t i = 0; i < 3; ++i) {
      sequences.push_back({.ids = parts[i][call],
                           .context = &together[i],
                           .memory = i == 1 ? &memory : nullptr,
                           .logits = i == 2 && call == 0 ? nullptr : &logits[i],
                           .all_logits = i != 0});
    }
    const absl::Status status = model->Run(*cpu, sequences, &workspace);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < 3; ++i) {
      std::vector<float> expected;
      ASSERT_TRUE(
          model->Forward(parts[i][call], &alone[i], i == 1 ? &memory : nullptr, &expected, i != 0)
              .ok());
      EXPECT_EQ(together[i].n_tokens(), alone[i].n_tokens());
      if (sequences[i].logits == nullptr) continue;
      // A context in bfloat16 may round a sum in another order to the neighbour.
      EXPECT_LT(Difference(logits[i], expected), i == 2 ? 0.05f : kTolerance)
          << "sequence " << i << ", call " << call;
    }
  }
}

TEST_P(RunTest, ThreadsShareAModel) {
  const std::vector<int32_t> ids = Prompt(GetParam());
  const auto cpu = Cpu();
  const std::unique_ptr<const Transformer> model = Load(cpu.get(), GetParam());
  const auto run = [&](std::span<const int32_t> prompt, int n_steps) {
    const auto device = Cpu(1);
    Workspace workspace;
    LocalContext context;
    std::vector<float> all, logits;
    std::vector<int32_t> next(prompt.begin(), prompt.end());
    for (int step = 0; step <= n_steps; ++step) {
      const Sequence sequence{.ids = next, .context = &context, .logits = &logits};
      const absl::Status status = model->Run(*device, {&sequence, 1}, &workspace);
      EXPECT_TRUE(status.ok()) << status;
      all.insert(all.end(), logits.begin(), logits.end());
      next = {
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
    }
    return all;
  };
  const std::span<const int32_t> prompt(ids);
  constexpr int kSteps = 20;
  std::vector<float> first, second;
  {
    std::jthread one([&] { first = run(prompt, kSteps); });
    std::jthread two([&] { second = run(prompt.first(17), kSteps); });
  }
  EXPECT_EQ(first, run(prompt, kSteps));
  EXPECT_EQ(second, run(prompt.first(17), kSteps));
}

TEST_P(RunTest, ALocalContextInBFloat16IsClose) {
  const std::vector<int32_t> ids = Prompt(GetParam());
  const auto cpu = Cpu();
  const auto model = Load(cpu.get(), GetParam());
  LocalContext exact, half(compute::DType::kBF16);
  for (const auto part : {std::span(ids).first(25), std::span(ids).subspan(25, 1)}) {
    std::vector<float> expected, logits;
    ASSERT_TRUE(model->Forward(part, &exact, nullptr, &expected).ok());
    ASSERT_TRUE(model->Forward(part, &half, nullptr, &logits).ok());
    const auto [least, largest] = std::minmax_element(expected.begin(), expected.end());
    EXPECT_LT(Difference(logits, expected), 0.02f * (*largest - *least));
    EXPECT_NE(logits, expected) << "was not rounded";
  }
}

TEST_P(RunTest, AnErrorLeavesTheContextsAsTheyWere) {
  const std::vector<int32_t> ids = Prompt(GetParam());
  const auto cpu = Cpu();
  const auto model = Load(cpu.get(), GetParam());
  LocalContext first, second;
  std::vector<float> before, after;
  ASSERT_TRUE(model->Forward(ids, &first, nullptr, nullptr).ok());
  Workspace workspace;
  const std::vector<int32_t> bad = {ids[0], -1};
  const Sequence sequences[] = {{.ids = ids, .context = &first}, {.ids = bad, .context = &second}};
  EXPECT_TRUE(absl::IsInvalidArgument(model->Run(*cpu, sequences, &workspace)));
  EXPECT_EQ(first.n_tokens(), static_cast<int64_t>(ids.size()));
  EXPECT_EQ(second.n_tokens(), 0);
}

TEST(OwnMemoryLayersTest, OthersThanTheModelsOwnAreRefused) {
  const TempFolder folder;
  std::filesystem::copy(kData / "qwen3", folder.path(), std::filesystem::copy_options::recursive);
  folder.Write("fot_config.json", R"({"mem_layers": [1], "window": 64})");
  const auto cpu = Cpu();
  LoadOptions options;
  options.model = folder.path();
  for (const std::vector<int>& named : {std::vector<int>{}, {1}}) {
    options.mem_layers = named;
    const auto model = Transformer::Load(cpu.get(), options);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ((*model)->memory_config().mem_layers, std::vector<int>{1});
  }
  for (const std::vector<int>& named : {std::vector<int>{0}, {0, 1}, {9}}) {
    options.mem_layers = named;
    const auto model = Transformer::Load(cpu.get(), options);
    EXPECT_TRUE(absl::IsInvalidArgument(model.status()));
    EXPECT_THAT(std::string(model.status().message()), testing::HasSubstr("of its own"));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RunTest, testing::Values("llama", "qwen2", "qwen3", "llama-q4_0"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace fovea::model
