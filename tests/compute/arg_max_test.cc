#include "compute/arg_max.h"

#include <algorithm>

#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class ArgMaxTest : public testing::TestWithParam<std::string> {};

TEST_P(ArgMaxTest, TheGreatestNumberIsTheFirstOfEqualOnes) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer out = *device->Allocate(sizeof(int32_t));
  const auto arg_max = [&](const std::vector<float>& numbers) {
    const Buffer x = ToDevice(*device, numbers);
    const absl::Status status =
        ArgMax(*device, {.x = {x.data<float>(), {static_cast<int64_t>(numbers.size())}},
                         .out = out.data<int32_t>()});
    EXPECT_TRUE(status.ok()) << status;
    int32_t place = -1;
    EXPECT_TRUE(device->CopyToHost(out.data<void>(), sizeof(place), &place).ok());
    return place;
  };
  for (const size_t n : {1, 31, 2048, 2049, 49152, 151936}) {
    std::vector<float> numbers = RandomFloats(n, static_cast<uint32_t>(n));
    EXPECT_EQ(arg_max(numbers), std::max_element(numbers.begin(), numbers.end()) - numbers.begin());
    numbers[n - 1] = numbers[n / 2] = 100.0f;
    EXPECT_EQ(arg_max(numbers), static_cast<int32_t>(n / 2));
    std::fill(numbers.begin(), numbers.end(), -3.0f);
    EXPECT_EQ(arg_max(numbers), 0);
    if (n > 1) {
      numbers[0] = std::nanf("");
      EXPECT_EQ(arg_max(numbers), 1) << "NaN is the least";
    }
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      ArgMax(*device, {.x = {out.data<float>(), {0}}, .out = out.data<int32_t>()})));
}

INSTANTIATE_TEST_SUITE_P(Devices, ArgMaxTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
