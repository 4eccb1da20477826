#include "base/slot_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

namespace fovea {
namespace {

TEST(SlotPoolTest, SlotsAreApartAndAligned) {
  const auto pool = SlotPool::Create(1000);
  std::vector<std::shared_ptr<std::byte>> slots;
  for (int i = 0; i < 500; ++i) {
    slots.push_back(pool->Allocate());
    ASSERT_NE(slots.back(), nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(slots.back().get()) % 64, 0u);
    std::memset(slots.back().get(), i % 251, pool->slot_bytes());
  }
  for (int i = 0; i < 500; ++i) {
    const std::byte* data = slots[static_cast<size_t>(i)].get();
    EXPECT_TRUE(
        std::all_of(data, data + 1000, [i](std::byte b) { return b == std::byte(i % 251); }))
        << "slot " << i;
  }
}

TEST(SlotPoolTest, WhatComesBackIsGivenAgain) {
  const auto pool = SlotPool::Create(4096);
  std::set<std::byte*> first;
  {
    std::vector<std::shared_ptr<std::byte>> slots;
    for (int i = 0; i < 100; ++i) first.insert(slots.emplace_back(pool->Allocate()).get());
  }
  std::vector<std::shared_ptr<std::byte>> slots;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(first.count(slots.emplace_back(pool->Allocate()).get()), 1u) << "slot " << i;
  }
  EXPECT_EQ(first.count(pool->Allocate().get()), 0u) << "all of them are in use";
}

TEST(SlotPoolTest, ASlotOutlivesItsOwner) {
  std::shared_ptr<std::byte> slot;
  {
    const auto pool = SlotPool::Create(size_t{1} << 20);
    slot = pool->Allocate();
  }
  std::memset(slot.get(), 7, size_t{1} << 20);
  EXPECT_EQ(slot.get()[(size_t{1} << 20) - 1], std::byte{7});
}

TEST(SlotPoolTest, ThreadsNeverShareASlot) {
  const auto pool = SlotPool::Create(256);
  std::vector<int> n_wrong(4, 0);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&pool, &n_wrong, t] {
        for (int round = 0; round < 200; ++round) {
          std::vector<std::shared_ptr<std::byte>> mine;
          for (int i = 0; i < 20; ++i) {
            mine.push_back(pool->Allocate());
            std::memset(mine.back().get(), t, pool->slot_bytes());
          }
          for (const auto& slot : mine) {
            n_wrong[static_cast<size_t>(t)] +=
                !std::all_of(slot.get(), slot.get() + pool->slot_bytes(),
                             [t](std::byte b) { return b == std::byte(t); });
          }
        }
      });
    }
  }
  EXPECT_EQ(n_wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace fovea
