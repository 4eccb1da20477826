#include "model/weights/adapter_base.h"

#include <fstream>

#include "file_writers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::model {
namespace {

using ::testing::HasSubstr;

TEST(IsSameModelNameTest, LooksPastPathsCaseAndForm) {
  constexpr char kName[] = "HuggingFaceTB/SmolLM2-135M-Instruct";
  for (const char* same :
       {"HuggingFaceTB/SmolLM2-135M-Instruct", "/models/smollm2-135m-instruct/",
        "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2_135m_instruct-q4_k_m.gguf",
        "SmolLM2 135M Instruct", "SmolLM2-135M-Instruct-IQ2_XXS.gguf", "SmolLM2-135M-Instruct-GGUF",
        "SmolLM2-135M-Instruct-bf16", "SmolLM2-135M-Instruct-4bit",
        "models--HuggingFaceTB--SmolLM2-135M-Instruct"}) {
    EXPECT_TRUE(IsSameModelName(kName, same)) << same;
    EXPECT_TRUE(IsSameModelName(same, kName)) << same;
  }
  for (const char* other :
       {"some/other-model-1B", "SmolLM2-135M", "SmolLM2-360M-Instruct", "SmolLM-135M-Instruct",
        "SmolLM2-135M-Instruct-v2", "SmolLM2-135M-Instruct-s", "", "/", "gguf"}) {
    EXPECT_FALSE(IsSameModelName(kName, other)) << other;
  }
  EXPECT_FALSE(IsSameModelName("", ""));
}

TEST(AdapterBaseWarningTest, NamesTheBaseModelAndTheOneThatIsUsed) {
  TempFolder folder;
  ModelConfig config;
  const auto warning = [&](const std::string& json, const std::string& model) {
    std::ofstream(folder.path() / "adapter_config.json") << json;
    return AdapterBaseWarning(folder.path(), model, config);
  };
  const std::string json = R"({"base_model_name_or_path": "org/Tiny-1B"})";
  EXPECT_EQ(warning(json, "models/tiny-1b.Q8_0.gguf"), "");
  EXPECT_EQ(warning(json, "cache/models--org--Tiny-1B/snapshots/0a1b"), "");
  EXPECT_THAT(warning(json, "models/large.gguf"),
              HasSubstr("was made for the base model org/Tiny-1B (adapter_config.json), and is "
                        "used with models/large.gguf: "));
  config.name = "Large 7B";
  EXPECT_THAT(warning(json, "models/large.gguf"), HasSubstr("large.gguf (Large 7B): "));
  config.name = "Tiny 1B";
  EXPECT_EQ(warning(json, "models/large.gguf"), "");
  EXPECT_EQ(warning("{}", "other"), "");
  EXPECT_EQ(warning(R"({"base_model_name_or_path": null})", "other"), "");
  EXPECT_EQ(warning("broken", "other"), "");
}

}  // namespace
}  // namespace fovea::model
