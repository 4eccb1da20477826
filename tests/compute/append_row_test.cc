#include "compute/append_row.h"

#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class AppendRowTest : public testing::TestWithParam<std::string> {};

TEST_P(AppendRowTest, RowsAreAppendedUntilTheirRoomIsFull) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer rows = ToDevice(*device, std::vector<float>(4 * 5, -1.0f));
  const Buffer next = ToDevice(*device, std::vector<int32_t>{0});
  std::vector<float> expected;
  for (int row = 0; row < 6; ++row) {
    const auto x = static_cast<float>(row);
    const Buffer two = ToDevice(*device, {x, x + 0.25f});
    const Buffer three = ToDevice(*device, {x + 0.5f, x + 0.75f, x + 0.875f});
    const AppendRowArgs::Piece pieces[] = {{two.data<void>(), 8}, {three.data<void>(), 12}};
    for (const bool advances : {false, true}) {
      const absl::Status status = AppendRow(*device, {.pieces = pieces,
                                                      .rows = rows.data<void>(),
                                                      .n_rows = 4,
                                                      .next_row = next.data<int32_t>(),
                                                      .advances = advances});
      ASSERT_TRUE(status.ok()) << status;
    }
    if (row < 4) expected.insert(expected.end(), {x, x + 0.25f, x + 0.5f, x + 0.75f, x + 0.875f});
  }
  EXPECT_EQ(ToHost(*device, rows, 20), expected);
  const AppendRowArgs::Piece odd[] = {{rows.data<void>(), 3}};
  EXPECT_TRUE(absl::IsInvalidArgument(AppendRow(
      *device,
      {.pieces = odd, .rows = rows.data<void>(), .n_rows = 4, .next_row = next.data<int32_t>()})));
}

INSTANTIATE_TEST_SUITE_P(Devices, AppendRowTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
