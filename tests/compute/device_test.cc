#include "compute/device.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "base/processors.h"
#include "tests/base/unmapped_page.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

TEST(DeviceTest, UnknownDevicesAreRefusedByName) {
  const auto device = Device::Create("tpu");
  EXPECT_TRUE(absl::IsInvalidArgument(device.status()));
  EXPECT_THAT(std::string(device.status().message()), testing::HasSubstr("'tpu'"));
  EXPECT_TRUE(absl::IsInvalidArgument(Device::Create("cpu", -1).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Device::Create("").status()));
}

TEST(DeviceTest, PrecisionsAndGpusOfOtherKindsAreRefusedByName) {
  for (const char* precision : {"bfloat16", "int4", ""}) {
    const auto device = Device::Create("cpu", 1, precision);
    EXPECT_TRUE(absl::IsInvalidArgument(device.status())) << device.status();
    EXPECT_THAT(std::string(device.status().message()),
                testing::HasSubstr(StrCat("'", precision, "'")));
  }
  for (const char* spec : {"cuda:", "cuda:-1", "cuda:1x", "cuda0", "CUDA"}) {
    const auto device = Device::Create(spec);
    EXPECT_TRUE(absl::IsInvalidArgument(device.status())) << device.status();
    EXPECT_THAT(std::string(device.status().message()), testing::HasSubstr("'cuda:N'"));
  }
}

TEST(DeviceTest, HasTheThreadsAskedFor) {
  EXPECT_EQ((*Device::Create("cpu", 3))->threads().n_threads(), 3);
  EXPECT_EQ((*Device::Create("cpu"))->threads().n_threads(), NumProcessors());
}

class BufferTest : public testing::TestWithParam<std::string> {};

TEST_P(BufferTest, IsAlignedAndHoldsWhatIsCopied) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  for (const size_t n : {size_t{1}, size_t{3}, size_t{1000}, size_t{100'000}}) {
    const std::vector<float> values = RandomFloats(n, 1);
    const Buffer buffer = ToDevice(*device, values);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data<void>()) % 64, 0u);
    EXPECT_EQ(buffer.size_bytes(), n * sizeof(float));
    EXPECT_EQ(ToHost(*device, buffer, n), values);
  }
}

TEST_P(BufferTest, MovesWithItsMemory) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  Buffer first = ToDevice(*device, {1.0f, 2.0f});
  void* const data = first.data<void>();
  Buffer second = std::move(first);
  EXPECT_EQ(second.data<void>(), data);
  EXPECT_EQ(first.data<void>(), nullptr);  // NOLINT(bugprone-use-after-move): what is tested
  first = ToDevice(*device, {3.0f});
  first = std::move(second);
  EXPECT_EQ(ToHost(*device, first, 2), (std::vector<float>{1.0f, 2.0f}));
}

TEST_P(BufferTest, ReserveKeepsWhatIsLargeEnough) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  Buffer buffer;
  ASSERT_TRUE(device->Reserve(100, &buffer).ok());
  EXPECT_GE(buffer.size_bytes(), 100u);
  void* const data = buffer.data<void>();
  ASSERT_TRUE(device->Reserve(50, &buffer).ok());
  EXPECT_EQ(buffer.data<void>(), data);
  ASSERT_TRUE(device->Reserve(100000, &buffer).ok());
  EXPECT_GE(buffer.size_bytes(), 100000u);
}

TEST_P(BufferTest, AnImpossibleSizeIsResourceExhausted) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  for (const size_t size : {std::numeric_limits<size_t>::max(), size_t{1} << 60}) {
    const auto buffer = device->Allocate(size);
    EXPECT_TRUE(absl::IsResourceExhausted(buffer.status())) << buffer.status();
  }
}

TEST_P(BufferTest, OutlivesItsDevice) {
  Buffer buffer;
  {
    MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
    buffer = ToDevice(*device, {1.0f, 2.0f});
  }
  MAKE_DEVICE_OR_SKIP(other, GetParam(), 1);
  EXPECT_EQ(ToHost(*other, buffer, 2), (std::vector<float>{1.0f, 2.0f}));
  buffer = Buffer();  // what a sanitizer looks at
}

TEST_P(BufferTest, CopiesAndFills) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const std::vector<float> values = RandomFloats(1000, 1);
  const Buffer from = ToDevice(*device, values);
  const Buffer to = ToDevice(*device, std::vector<float>(1000, 7.0f));
  ASSERT_TRUE(device->Copy(from.data<float>() + 10, 20 * sizeof(float), to.data<float>()).ok());
  ASSERT_TRUE(device->Fill(-3.5f, 5, to.data<float>() + 900).ok());
  ASSERT_TRUE(device->Synchronize().ok());
  std::vector<float> want(1000, 7.0f);
  std::copy_n(values.begin() + 10, 20, want.begin());
  std::fill_n(want.begin() + 900, 5, -3.5f);
  EXPECT_EQ(ToHost(*device, to, 1000), want);
}

TEST_P(BufferTest, ConstantsAndPinnedMemoryHoldWhatTheyShould) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const std::vector<float> values = RandomFloats(1000, 1);
  const auto constant = device->UploadConstant(values.data(), values.size() * sizeof(float));
  ASSERT_TRUE(constant.ok()) << constant.status();
  EXPECT_EQ(ToHost(*device, *constant, 1000), values);
  const auto pinned = device->AllocatePinned(1000 * sizeof(float));
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  ASSERT_TRUE(
      device->CopyToHost(constant->data<float>(), 1000 * sizeof(float), pinned->data<float>())
          .ok());
  EXPECT_EQ(std::vector<float>(pinned->data<float>(), pinned->data<float>() + 1000), values);
}

TEST(DeviceTest, ACpuReadsConstantsWhereTheyLie) {
  const std::vector<float> values(10);
  const auto constant =
      (*Device::Create("cpu", 1))->UploadConstant(values.data(), values.size() * sizeof(float));
  ASSERT_TRUE(constant.ok()) << constant.status();
  EXPECT_EQ(constant->data<float>(), values.data());
}

TEST(DeviceTest, TheSystemHasBackWhatACpuFreesAmongWhatIsUsed) {
  // glibc's malloc keeps pieces of a size of which one was freed, up to 32 MiB.
  constexpr size_t kBytes = size_t{1} << 20;
  std::free(std::memset(std::malloc(24 * kBytes), 1, 24 * kBytes));
  const auto device = Device::Create("cpu", 1);
  ASSERT_TRUE(device.ok()) << device.status();
  std::vector<Buffer> buffers;
  for (int i = 0; i < 5; ++i) {
    auto buffer = (*device)->Allocate(kBytes);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    std::memset(buffer->data<void>(), 1, kBytes);
    buffers.push_back(*std::move(buffer));
  }
  const auto middle = reinterpret_cast<uintptr_t>(buffers[2].data<std::byte>()) + kBytes / 2;
  EXPECT_FALSE(IsUnmapped(middle));
  buffers[2] = Buffer();
  EXPECT_TRUE(IsUnmapped(middle));
}

INSTANTIATE_TEST_SUITE_P(Devices, BufferTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

TEST(MemoryBudgetTest, NeverGivesMoreThanItsLimit) {
  MemoryBudget budget(1000);
  EXPECT_TRUE(budget.TryReserve(600));
  EXPECT_FALSE(budget.TryReserve(401));
  EXPECT_FALSE(budget.TryReserve(std::numeric_limits<size_t>::max()));
  EXPECT_TRUE(budget.TryReserve(400));
  EXPECT_FALSE(budget.TryReserve(1));
  budget.Release(600);
  EXPECT_TRUE(budget.TryReserve(600));
  budget.set_limit_bytes(10);
  EXPECT_FALSE(budget.TryReserve(1));
  EXPECT_EQ(budget.used_bytes(), 1000u);
}

TEST(MemoryBudgetTest, ConcurrentReservationsDoNotOvershoot) {
  MemoryBudget budget(1000);
  std::atomic<int> n_reserved{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int j = 0; j < 500; ++j) n_reserved += budget.TryReserve(3);
      });
    }
  }
  EXPECT_EQ(n_reserved, 333);
  EXPECT_EQ(budget.used_bytes(), 999u);
}

}  // namespace
}  // namespace fovea::compute
