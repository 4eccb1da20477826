// Ops that are recorded once and replayed (compute/device.h).
#include <cstring>

#include "compute/arg_max.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class RecordingTest : public testing::TestWithParam<std::string> {};

TEST_P(RecordingTest, ReadsItsInputsEachTime) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  if (!device->CanRecord()) GTEST_SKIP() << "recording does not pay on this device";
  constexpr size_t kN = 1000;
  const Buffer pinned = *device->AllocatePinned(kN * sizeof(float));
  const Buffer x = *device->Allocate(kN * sizeof(float));
  const Buffer best = *device->Allocate(sizeof(int32_t));
  const auto queue = [&]() -> absl::Status {
    RETURN_IF_ERROR(
        device->CopyFromPinned(pinned.data<void>(), kN * sizeof(float), x.data<void>()));
    return ArgMax(*device, {.x = {x.data<float>(), {kN}}, .out = best.data<int32_t>()});
  };
  auto recording = device->Record(queue);
  ASSERT_TRUE(recording.ok()) << recording.status();
  for (const int32_t place : {3, 999, 0}) {
    std::vector<float> numbers(kN, 1.0f);
    numbers[static_cast<size_t>(place)] = 2.0f;
    std::memcpy(pinned.data<void>(), numbers.data(), kN * sizeof(float));
    ASSERT_TRUE((*recording)->Replay().ok());
    int32_t found = -1;
    ASSERT_TRUE(device->CopyToHost(best.data<void>(), sizeof(found), &found).ok());
    EXPECT_EQ(found, place);
  }
  // What would be allocated for one run and given back is not there in the next.
  const auto allocates = device->Record([&] { return device->Allocate(4).status(); });
  EXPECT_TRUE(absl::IsFailedPrecondition(allocates.status())) << allocates.status();
  EXPECT_TRUE(device->Allocate(4).ok()) << "the device goes on";
  const auto fails = device->Record([] { return absl::CancelledError("stopped"); });
  EXPECT_TRUE(absl::IsCancelled(fails.status())) << fails.status();
  ASSERT_TRUE((*recording)->Replay().ok());
  ASSERT_TRUE(device->Synchronize().ok());
}

INSTANTIATE_TEST_SUITE_P(Devices, RecordingTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
