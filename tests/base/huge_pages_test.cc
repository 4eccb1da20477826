#include "base/huge_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

namespace fovea {
namespace {

TEST(HugePagesTest, GivesAlignedZerosThatDoNotOverlap) {
  HugePages pages(size_t{256} << 20);
  // More than one mapping, and one that is larger than a mapping usually is.
  const std::vector<size_t> sizes = {
      1, 64, 100'000, size_t{30} << 20, size_t{40} << 20, size_t{70} << 20, 65};
  std::vector<std::span<std::byte>> given;
  for (const size_t size : sizes) {
    std::byte* data = pages.Allocate(size);
    ASSERT_NE(data, nullptr) << size;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u);
    EXPECT_TRUE(std::all_of(data, data + size, [](std::byte b) { return b == std::byte{0}; }));
    given.emplace_back(data, size);
    std::memset(data, static_cast<int>(given.size()), size);
  }
  for (size_t i = 0; i < given.size(); ++i) {
    const auto mark = static_cast<std::byte>(i + 1);
    EXPECT_TRUE(
        std::all_of(given[i].begin(), given[i].end(), [mark](std::byte b) { return b == mark; }));
  }
}

TEST(HugePagesTest, BeyondTheLimitThereIsNothing) {
  HugePages pages(1000);
  EXPECT_EQ(pages.Allocate(SIZE_MAX), nullptr);
  EXPECT_EQ(pages.Allocate(1001), nullptr);
  EXPECT_NE(pages.Allocate(600), nullptr);
  EXPECT_EQ(pages.Allocate(600), nullptr);
  EXPECT_NE(pages.Allocate(300), nullptr) << "what is left can still be had";
}

TEST(HugePagesTest, ThreadsGetDifferentMemory) {
  HugePages pages(size_t{64} << 20);
  std::vector<std::vector<std::byte*>> given(4);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : given) {
      threads.emplace_back([&pages, &mine] {
        for (int i = 0; i < 200; ++i) mine.push_back(pages.Allocate(4096));
      });
    }
  }
  std::vector<std::byte*> all;
  for (const auto& mine : given) all.insert(all.end(), mine.begin(), mine.end());
  std::sort(all.begin(), all.end());
  ASSERT_NE(all.front(), nullptr);
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end(),
                               [](std::byte* a, std::byte* b) { return b < a + 4096; }),
            all.end());
}

}  // namespace
}  // namespace fovea
