// The tiny random model of the memory's tests, for training and for fovea's own engine.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "compute/device.h"
#include "model/transformer.h"
#include "model/weights/checkpoint.h"
#include "tests/memory/tiny_model.h"
#include "train/trainable_model.h"

namespace fovea::train {

class TinyTrainableTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "train_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    ASSERT_TRUE(memory::WriteTinyModel(folder_ / "model", 7).ok());
    auto checkpoint = model::Checkpoint::Open(folder_ / "model");
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
    auto device = compute::Device::Create("cpu", 2);
    ASSERT_TRUE(device.ok());
    device_ = *std::move(device);
    torch::manual_seed(3);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static TrainableOptions Options() {
    TrainableOptions options;
    options.mem_layers = {1, 2};
    options.lora_rank = 4;
    options.lora_alpha = 8;
    options.seed = 5;
    return options;
  }
  std::unique_ptr<TrainableModel> Load(const TrainableOptions& options,
                                       const model::Adapter* start = nullptr) {
    auto model = TrainableModel::Load(*checkpoint_, start, options);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : nullptr;
  }
  // Changes parameters as training would: B of a low-rank update begins at 0.
  static void Disturb(const TrainableModel& model, double by) {
    torch::NoGradGuard guard;
    for (const TrainableParameter& parameter : model.parameters()) {
      torch::Tensor value = parameter.value;
      value.add_(torch::randn_like(value) * by);
    }
  }
  static torch::Tensor RandomIds(int64_t n, int64_t n_tokens) {
    return torch::randint(0, 256, {n, n_tokens}, torch::kInt64);
  }
  static std::vector<int32_t> IdsOf(const torch::Tensor& row) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < row.size(0); ++i) {
      ids.push_back(static_cast<int32_t>(row[i].item<int64_t>()));
    }
    return ids;
  }
  static double Difference(const torch::Tensor& a, const torch::Tensor& b) {
    return (a - b).abs().max().item<double>();
  }

  std::filesystem::path folder_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  std::unique_ptr<compute::Device> device_;
};

}  // namespace fovea::train
