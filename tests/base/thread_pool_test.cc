#include "base/thread_pool.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "base/processors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea {
namespace {

TEST(ThreadPoolTest, CoversEveryItemOnceInRangesOfTheGrain) {
  for (const int n_threads : {1, 2, 5}) {
    ThreadPool pool(n_threads);
    EXPECT_EQ(pool.n_threads(), n_threads);
    for (const int64_t n : {1, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        pool.ParallelFor(n, grain, [&](int64_t begin, int64_t end, int thread) {
          EXPECT_EQ(begin % grain, 0);
          EXPECT_EQ(end, std::min(begin + grain, n));
          EXPECT_GE(thread, 0);
          EXPECT_LT(thread, n_threads);
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (const auto& count : visits) ASSERT_EQ(count, 1);
      }
    }
  }
}

// Threads without a processor of their own sleep until there is work.
TEST(ThreadPoolTest, MoreThreadsThanProcessorsDoNotSpin) {
  const auto processor_seconds = [] {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  };
  ThreadPool pool(NumProcessors() + 64);
  const double before = processor_seconds();
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 400; ++i) {
    pool.ParallelFor(2, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(sum, 400);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // If 64 threads spin after each loop, they take a second and more; to wake them, 0.1 to 0.3.
  EXPECT_LT(processor_seconds() - before, 0.6);
#else
  (void)before;
#endif
}

TEST(ThreadPoolTest, NothingToDoCallsNothing) {
  ThreadPool pool(3);
  for (const int64_t n : {0, -5}) {
    pool.ParallelFor(n, 1, [](int64_t, int64_t, int) { FAIL(); });
  }
}

TEST(ThreadPoolTest, AGrainBelowOneCountsAsOne) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  pool.ParallelFor(10, 0, [&](int64_t begin, int64_t end, int) {
    EXPECT_EQ(end, begin + 1);
    sum += begin;
  });
  EXPECT_EQ(sum, 45);
}

TEST(ThreadPoolTest, NoTwoConcurrentCallsShareAThreadNumber) {
  ThreadPool pool(4);
  std::vector<std::atomic<bool>> in_use(4);
  for (int repeat = 0; repeat < 200; ++repeat) {
    pool.ParallelFor(64, 1, [&](int64_t, int64_t, int thread) {
      auto& flag = in_use[static_cast<size_t>(thread)];
      EXPECT_FALSE(flag.exchange(true));
      flag = false;
    });
  }
}

TEST(ThreadPoolTest, WritesOfALoopAreSeenAfterIt) {
  ThreadPool pool(3);
  std::vector<int64_t> values(1000);
  for (int64_t round = 1; round <= 500; ++round) {
    pool.ParallelFor(1000, 50, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) ++values[static_cast<size_t>(i)];
    });
    ASSERT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 1000 * round);
  }
}

TEST(ThreadPoolTest, ALoopInALoopRunsOnItsCaller) {
  ThreadPool pool(3);
  std::atomic<int64_t> n_inner{0};
  pool.ParallelFor(20, 1, [&](int64_t, int64_t, int) {
    const auto caller = std::this_thread::get_id();
    pool.ParallelFor(10, 1, [&](int64_t, int64_t, int thread) {
      EXPECT_EQ(thread, 0);
      EXPECT_EQ(std::this_thread::get_id(), caller);
      ++n_inner;
    });
  });
  EXPECT_EQ(n_inner, 200);
}

TEST(ThreadPoolTest, SeveralCallersAtOnceAllFinish) {
  ThreadPool pool(2);
  std::vector<int64_t> sums(4);
  {
    std::vector<std::jthread> callers;
    for (auto& sum : sums) {
      callers.emplace_back([&pool, &sum] {
        for (int repeat = 0; repeat < 200; ++repeat) {
          std::atomic<int64_t> total{0};
          pool.ParallelFor(100, 7, [&](int64_t begin, int64_t end, int) {
            for (int64_t i = begin; i < end; ++i) total += i;
          });
          sum += total;
        }
      });
    }
  }
  EXPECT_THAT(sums, testing::Each(4950 * 200));
}

TEST(ThreadPoolTest, EndsWhileItsThreadsSleep) {
  for (int i = 0; i < 20; ++i) ThreadPool pool(4);
}

}  // namespace
}  // namespace fovea
