// A tiny model and a memory that it filled, for tests of whole questions. The model has random
// weights: what it says means nothing, but it says the same each time.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "documents/text_document.h"
#include "gtest/gtest.h"
#include "memory/ingest/ingester.h"
#include "memory/memory.h"
#include "tests/memory/tiny_model.h"

namespace fovea::answer {

class TinyMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "fovea-answer-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    auto device = compute::Device::Create("cpu", 2);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    ASSERT_TRUE(memory::WriteTinyModel(folder_ / "model", /*seed=*/7, kMaxPositions).ok());
  }
  void TearDown() override {
    memory_.reset();
    model_.reset();
    device_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  // With memory layers 1 and 2, or with none.
  void LoadModel(bool with_memory_layers = true) {
    model::LoadOptions options;
    options.model = folder_ / "model";
    if (with_memory_layers) options.mem_layers = {1, 2};
    auto model = model::Transformer::Load(device_.get(), options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }
  void OpenMemory() {
    auto memory = memory::Memory::Open(folder_ / "memory", {.mode = storage::OpenMode::kCreate});
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
  }
  void IngestText(const std::string& title, const std::string& text,
                  const std::string& collection = "default") {
    memory::IngestOptions options;
    options.model_name = "tiny";
    options.adapter_name = "none";
    options.window = window_;
    options.overlap = 16;
    auto ingester = memory::Ingester::Create(memory_.get(), model_.get(), options);
    ASSERT_TRUE(ingester.ok()) << ingester.status();
    const auto document = documents::MakeTextDocument(title, title, text);
    absl::Status status = (*ingester)->Add(*document, collection);
    ASSERT_TRUE(status.ok()) << status;
    status = (*ingester)->Finish();
    ASSERT_TRUE(status.ok()) << status;
  }

  static constexpr int64_t kMaxPositions = 512;
  int window_ = 128;
  std::filesystem::path folder_;
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<model::Transformer> model_;
  std::unique_ptr<memory::Memory> memory_;
};

}  // namespace fovea::answer
