// Every instruction set that the kernels are compiled for and this machine has, not only the best
// one, which is what other tests run on. Not while other threads compute: the
// choice is the process's.
#pragma once

#include <string>
#include <string_view>

#include "compute/cpu/amx.h"
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

// check(target) under each instruction set, with and without VNNI and AMX, which no instruction set
// of dispatch tells.
template <typename Check>
void WithEachInstructionSet(Check check) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    const OnlyTarget only(target);
    for (const char* without : {"", " without AMX", " without AMX and VNNI"}) {
      SCOPED_TRACE(std::string(hwy::TargetName(target)) + without);
      cpu::DisableAmxForTest(*without != '\0');
      cpu::DisableVnniForTest(std::string_view(without).ends_with("VNNI"));
      check(target);
    }
    cpu::DisableAmxForTest(false);
    cpu::DisableVnniForTest(false);
  }
}

}  // namespace fovea::compute
