// That the guard of guarded_device.h guards.
#include "tests/compute/guarded_device.h"

#include "compute/rms_norm.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

TEST(GuardedDeviceTest, OpsAndCopiesReachItsMemory) {
  GuardedDevice device(2);
  const Buffer x = ToDevice(device, {3.0f, 4.0f});
  const Buffer weight = ToDevice(device, {1.0f, 2.0f});
  ASSERT_TRUE(RmsNorm(device, {.x = {x.data<float>(), {1, 2}},
                               .weight = {weight.data<float>(), {2}},
                               .out = {x.data<float>(), {1, 2}}})
                  .ok());
  const std::vector<float> out = ToHost(device, x, 2);
  EXPECT_NEAR(out[0], 3.0 / std::sqrt(12.5), 1e-5);
  EXPECT_NEAR(out[1], 8.0 / std::sqrt(12.5), 1e-5);
}

TEST(GuardedDeviceTest, TheHostDoesNot) {
  GuardedDevice device(1);
  const Buffer x = ToDevice(device, {3.0f, 4.0f});
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        volatile float value = x.data<float>()[0];
        (void)value;
      },
      "");
  EXPECT_DEATH(x.data<float>()[1] = 2.0f, "");
}

TEST(GuardedDeviceTest, OpsRefuseMemoryOfTheHost) {
  GuardedDevice device(1);
  const Buffer x = ToDevice(device, {3.0f, 4.0f});
  const std::vector<float> weight = {1.0f, 2.0f};
  const absl::Status status = RmsNorm(device, {.x = {x.data<float>(), {1, 2}},
                                               .weight = {weight.data(), {2}},
                                               .out = {x.data<float>(), {1, 2}}});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("RmsNorm: weight"),
                             testing::HasSubstr("the device's memory")));
}

}  // namespace
}  // namespace fovea::compute
