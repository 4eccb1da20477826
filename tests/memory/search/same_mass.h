// Two searchers name the same sources.
#pragma once

#include <vector>

#include "gtest/gtest.h"
#include "memory/search/searcher.h"

namespace fovea::memory {

inline void ExpectSameMass(const std::vector<SlotMass>& got, const std::vector<SlotMass>& want,
                           float tolerance = 1e-5f) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(got[i].slot, want[i].slot);
    ASSERT_EQ(got[i].mass.size(), want[i].mass.size());
    for (size_t m = 0; m < want[i].mass.size(); ++m) {
      ASSERT_NEAR(got[i].mass[m], want[i].mass[m], tolerance);
    }
  }
}

}  // namespace fovea::memory
