// LongLLaMA's inference against outputs of its public PyTorch code: every fixture in data/parity.
#include <gtest/gtest.h>

#include <algorithm>

#include "compute/device.h"
#include "model/parity_fixture.h"

namespace fovea::model {
namespace {

const std::filesystem::path kFixtures = FOVEA_SOURCE_DIR "/tests/model/data/parity";

// A correct float32 implementation differs by about 3e-5. A memory in bfloat16 may differ by single
// roundings, which show in few logits; one wrongly kept in float32 has a median of 1e-3.
struct Limits {
  double max, p999, median;
};
constexpr Limits kFloat32 = {3e-4, 3e-4, 1e-4};
constexpr Limits kBFloat16 = {2e-2, 5e-3, 1e-4};

class LongLlamaParityTest : public testing::TestWithParam<std::string> {};

TEST_P(LongLlamaParityTest, HasTheReferencesLogitsSizesAndOverflows) {
  auto device = compute::Device::Create("cpu", 1);
  ASSERT_TRUE(device.ok()) << device.status();
  const auto cases = RunParityFixture(device->get(), kFixtures / GetParam());
  ASSERT_TRUE(cases.ok()) << cases.status();
  EXPECT_FALSE(cases->empty());
  const Limits& limits = GetParam().ends_with("bf16") ? kBFloat16 : kFloat32;
  for (const ParityCase& c : *cases) {
    EXPECT_LT(c.max, limits.max) << c.name;
    EXPECT_LT(c.p999, limits.p999) << c.name;
    EXPECT_LT(c.median, limits.median) << c.name;
    EXPECT_LT(c.memory_max, limits.max) << c.name;
    EXPECT_TRUE(c.sizes_equal) << c.name;
    EXPECT_TRUE(c.overflow_equal) << c.name;
  }
}

std::vector<std::string> Fixtures() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFixtures)) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, LongLlamaParityTest, testing::ValuesIn(Fixtures()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace fovea::model
