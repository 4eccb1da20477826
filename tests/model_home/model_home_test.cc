#include "model_home/model_home.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/weights/checkpoint.h"
#include "tests/memory/tiny_model.h"

namespace fovea::model_home {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ModelHomeTest : public ::testing::Test {
 protected:
  ModelHomeTest() {
    std::string name = (fs::temp_directory_path() / "fovea-home-XXXXXX").string();
    FOVEA_CHECK(mkdtemp(name.data()) != nullptr);
    folder_ = name;
    home_.folder = folder_ / "home";
    home_.adapter_folders = {folder_ / "share"};
  }
  ~ModelHomeTest() override { fs::remove_all(folder_); }

  fs::path AddModel(const fs::path& path, uint32_t seed = 1) {
    EXPECT_TRUE(memory::WriteTinyModel(path, seed).ok());
    return path;
  }
  fs::path AddAdapter(const fs::path& path, const std::string& base_fingerprint) {
    fs::create_directories(path);
    std::ofstream(path / "fot_config.json")
        << nlohmann::json{{"mem_layers", {1}}, {"base_fingerprint", base_fingerprint}};
    return path;
  }
  std::string FingerprintOf(const fs::path& model) {
    const auto checkpoint = model::Checkpoint::Open(model);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? (*checkpoint)->Fingerprint().ToHex() : "";
  }

  fs::path folder_;
  ModelHome home_;
};

TEST_F(ModelHomeTest, FindsAModelByNameOrPath) {
  const fs::path model = AddModel(home_.models() / "tiny");
  EXPECT_EQ(FindModel(home_, "tiny").value_or(""), model);
  EXPECT_EQ(FindModel(home_, model.string()).value_or(""), model);
}

TEST_F(ModelHomeTest, AnUnknownNameListsWhatThereIs) {
  AddModel(home_.models() / "tiny");
  for (const char* name : {"huge", "./huge", "/nowhere/huge"}) {
    const auto model = FindModel(home_, name);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(model.status().message()),
                AllOf(HasSubstr("tiny"), HasSubstr("fovea model pull smollm2")));
  }
}

TEST_F(ModelHomeTest, TheDefaultModelIsFoundUnderItsName) {
  const auto missing = FindModel(home_, std::string(kDefaultModel));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("fovea model pull smollm2"));
  const fs::path file = home_.models() / "SmolLM2-135M-Instruct.Q4_1.gguf";
  fs::create_directories(home_.models());
  std::ofstream(file) << "GGUF";
  EXPECT_EQ(FindModel(home_, "smollm2").value_or(""), file);
  EXPECT_EQ(FindModel(home_, "SmolLM2-135M-Instruct.Q4_1.gguf").value_or(""), file);
}

TEST_F(ModelHomeTest, ListsKnownModelsFirst) {
  AddModel(home_.models() / "tiny");
  std::vector<std::string> names;
  for (const NamedModel& model : ListModels(home_)) names.push_back(model.name);
  EXPECT_THAT(names, ElementsAre("smollm2", "tiny"));
}

TEST_F(ModelHomeTest, PicksTheAdapterThatWasMadeForTheModel) {
  const fs::path model = AddModel(folder_ / "tiny");
  AddAdapter(home_.folder / "adapters" / "other", "00112233445566778899aabbccddeeff");
  const fs::path right = AddAdapter(folder_ / "share" / "right", FingerprintOf(model));
  const auto choice = ChooseModel(home_, model.string(), std::nullopt);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->adapter, right);
  EXPECT_EQ(choice->adapter_name, "right");
  EXPECT_EQ(choice->model_name, model.string());
}

// Of those that come with fovea the known one; what a user put beside comes before.
TEST_F(ModelHomeTest, OfSeveralAdaptersTheKnownOneIsTaken) {
  const fs::path model = AddModel(folder_ / "tiny");
  const std::string fingerprint = FingerprintOf(model);
  const fs::path first = AddAdapter(folder_ / "share" / "a", fingerprint);
  AddAdapter(folder_ / "share" / "z", fingerprint);
  const auto chosen = [&] {
    const auto choice = ChooseModel(home_, model.string(), std::nullopt);
    EXPECT_TRUE(choice.ok()) << choice.status();
    return choice.ok() ? choice->adapter.value_or("") : fs::path();
  };
  EXPECT_EQ(chosen(), first);
  const fs::path known = AddAdapter(folder_ / "share" / "smollm2-135m-fot-5", fingerprint);
  EXPECT_EQ(chosen(), known);
  const fs::path own = AddAdapter(home_.folder / "adapters" / "x", fingerprint);
  EXPECT_EQ(chosen(), own);
}

TEST_F(ModelHomeTest, TheDefaultAdapterIsFoundForTheDefaultModel) {
  const char* fovea_home = std::getenv("FOVEA_HOME");
  const fs::path model_home = fovea_home != nullptr
                                  ? fs::path(fovea_home)
                                  : fs::path(std::getenv("HOME")) / ".local/share/fovea";
  const fs::path model = model_home / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(model)) GTEST_SKIP() << model << " is not there: fovea model pull smollm2";
  home_.adapter_folders = {fs::path(FOVEA_SOURCE_DIR) / "models"};
  const auto choice = ChooseModel(home_, model.string(), std::nullopt);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->adapter_name, "smollm2-135m-fot-5");
}

TEST_F(ModelHomeTest, AKnownModelWithoutItsAdapterIsWarnedAbout) {
  const fs::path model = home_.models() / "SmolLM2-135M-Instruct.Q4_1.gguf";
  fs::create_directories(home_.models());
  std::ofstream(model) << "GGUF";
  auto choice = ChooseModel(home_, std::string(kDefaultModel), std::nullopt);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_THAT(choice->adapter_warning,
              AllOf(HasSubstr("the adapter of smollm2, smollm2-135m-fot-5, is not in "),
                    HasSubstr((folder_ / "share").string()), HasSubstr("--adapter none")));
  choice = ChooseModel(home_, std::string(kDefaultModel), std::string(kNoAdapter));
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->adapter_warning, "");
  choice = ChooseModel(home_, AddModel(folder_ / "tiny").string(), std::nullopt);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->adapter_warning, "");
}

TEST_F(ModelHomeTest, AnotherModelGetsNoAdapter) {
  const fs::path model = AddModel(folder_ / "tiny", 1);
  const fs::path other = AddModel(folder_ / "other", 2);
  AddAdapter(folder_ / "share" / "right", FingerprintOf(model));
  const auto choice = ChooseModel(home_, other.string(), std::nullopt);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->adapter, std::nullopt);
  EXPECT_EQ(choice->adapter_name, "none");
}

TEST_F(ModelHomeTest, NoneMeansNoneAlsoWhereOneWouldFit) {
  const fs::path model = AddModel(folder_ / "tiny");
  AddAdapter(folder_ / "share" / "right", FingerprintOf(model));
  const auto choice = ChooseModel(home_, model.string(), "none");
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->adapter, std::nullopt);
}

TEST_F(ModelHomeTest, AnAdapterIsFoundByNameOrPath) {
  const fs::path model = AddModel(folder_ / "tiny");
  const fs::path adapter = AddAdapter(folder_ / "share" / "mine", "");
  for (const std::string& given : {std::string("mine"), adapter.string()}) {
    const auto choice = ChooseModel(home_, model.string(), given);
    ASSERT_TRUE(choice.ok()) << choice.status();
    EXPECT_EQ(choice->adapter, adapter);
  }
  EXPECT_EQ(ChooseModel(home_, model.string(), "yours").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ModelHomeTest, MemoryLayersCanBeNamedInPlaceOfAnAdapter) {
  const fs::path model = AddModel(folder_ / "tiny");
  const auto choice = ChooseModel(home_, model.string(), "layers:1,2");
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_THAT(choice->mem_layers, ElementsAre(1, 2));
  EXPECT_EQ(choice->adapter_name, "layers:1,2");
  EXPECT_THAT(ToLoadOptions(*choice).mem_layers, ElementsAre(1, 2));
  for (const char* wrong : {"layers:", "layers:2,1", "layers:x", "layers:-1", "layers:1,,2"}) {
    EXPECT_EQ(ChooseModel(home_, model.string(), wrong).status().code(),
              absl::StatusCode::kInvalidArgument)
        << wrong;
  }
}

TEST_F(ModelHomeTest, WhatAMemoryRemembersIsFoundAgain) {
  const fs::path model = AddModel(home_.models() / "tiny");
  const fs::path adapter = AddAdapter(folder_ / "share" / "right", FingerprintOf(model));
  const auto first = ChooseModel(home_, "tiny", std::nullopt);
  ASSERT_TRUE(first.ok()) << first.status();
  storage::StoreSettings settings;
  settings.model = first->model_name;
  settings.adapter = first->adapter_name;
  const auto again = RememberedModel(home_, settings, std::nullopt, std::nullopt);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->model, model);
  EXPECT_EQ(again->adapter, adapter);
}

TEST_F(ModelHomeTest, AMemoryMadeWithoutAdapterIsOpenedWithoutOne) {
  const fs::path model = AddModel(home_.models() / "tiny");
  AddAdapter(folder_ / "share" / "right", FingerprintOf(model));
  storage::StoreSettings settings;
  settings.model = "tiny";
  for (const char* remembered : {"none", ""}) {
    settings.adapter = remembered;
    const auto choice = RememberedModel(home_, settings, std::nullopt, std::nullopt);
    ASSERT_TRUE(choice.ok()) << choice.status();
    EXPECT_EQ(choice->adapter, std::nullopt);
  }
}

TEST_F(ModelHomeTest, AModelThatMovedIsNamedAndCanBeGiven) {
  const fs::path model = AddModel(folder_ / "tiny");
  storage::StoreSettings settings;
  settings.model = (folder_ / "gone").string();
  const auto missing = RememberedModel(home_, settings, std::nullopt, std::nullopt);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()),
              AllOf(HasSubstr("gone"), HasSubstr("--model")));
  const auto given = RememberedModel(home_, settings, model.string(), std::nullopt);
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->model, model);
}

// No other adapter opens the memory, nor does none.
TEST_F(ModelHomeTest, AnAdapterThatIsGoneIsNamedWithTheWayOut) {
  AddModel(home_.models() / "tiny");
  storage::StoreSettings settings;
  settings.model = "tiny";
  settings.adapter = "gone";
  const auto missing = RememberedModel(home_, settings, std::nullopt, std::nullopt);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()),
              AllOf(HasSubstr("made with model tiny and adapter gone"), HasSubstr("--adapter DIR"),
                    HasSubstr("rebuild --reencode --memory DIR --model tiny`"),
                    Not(HasSubstr("--adapter none"))));
}

TEST_F(ModelHomeTest, TheEnvironmentNamesTheHome) {
  setenv("FOVEA_HOME", folder_.c_str(), 1);
  EXPECT_EQ(ModelHome::FromEnvironment().folder, folder_);
  unsetenv("FOVEA_HOME");
  setenv("HOME", "/somewhere", 1);
  EXPECT_EQ(ModelHome::FromEnvironment().folder, "/somewhere/.local/share/fovea");
}

}  // namespace
}  // namespace fovea::model_home
