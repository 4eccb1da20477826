#include "answer/context_pool.h"

#include <gtest/gtest.h>

#include <vector>

namespace fovea::answer {
namespace {

TEST(ContextPoolTest, ContextsAreUsedAgain) {
  ContextPool pool;
  PromptContext* first = nullptr;
  {
    const ContextPool::Lease lease = pool.Lend();
    first = lease.get();
    EXPECT_EQ(pool.n_idle(), 0u);
  }
  EXPECT_EQ(pool.n_idle(), 1u);
  EXPECT_EQ(pool.Lend().get(), first);
}

TEST(ContextPoolTest, InARushNoneIsKept) {
  ContextPool pool;
  constexpr size_t kRush = 4 * ContextPool::kMaxKept;
  std::vector<ContextPool::Lease> leases;
  for (size_t i = 0; i < kRush; ++i) leases.push_back(pool.Lend());
  for (size_t i = 0; i < kRush; ++i) {
    leases.pop_back();  // an answer ends
    EXPECT_EQ(pool.n_idle(), 0u);
    leases.push_back(pool.Lend());  // the next question
  }
  // When it is over, those of a batch stay.
  leases.clear();
  EXPECT_EQ(pool.n_idle(), ContextPool::kMaxKept);
}

}  // namespace
}  // namespace fovea::answer
