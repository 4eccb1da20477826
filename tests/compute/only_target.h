// Every instruction set that the kernels are compiled for and this machine has, not only the best
// one, which is what other tests run on. Not while other threads compute: the
// choice is the process's.
#pragma once

#include "compute/cpu/simd_targets.h"
// After simd_targets.h.
#include "compute/cpu/vnni.h"
#include "gtest/gtest.h"
#include "hwy/highway.h"

namespace fovea::compute {

// Makes dispatch choose `target` while it lives.
class OnlyTarget {
 public:
  explicit OnlyTarget(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  ~OnlyTarget() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;
};

// check(target) under each instruction set, with and without VNNI.
template <typename Check>
void WithEachInstructionSet(Check check) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    const OnlyTarget only(target);
    for (const bool has_vnni : {true, false}) {
      SCOPED_TRACE(std::string(hwy::TargetName(target)) + (has_vnni ? "" : " without VNNI"));
      cpu::DisableVnniForTest(!has_vnni);
      check(target);
    }
    cpu::DisableVnniForTest(false);
  }
}

}  // namespace fovea::compute
