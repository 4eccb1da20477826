// Which precision products of many rows are faster in on this machine.
#pragma once

#include "compute/device.h"

namespace fovea::compute::cpu {

// Measured at the first call of the process (some milliseconds, one thread) where the processor has
// what 8 bits need. Thread-safe.
Precision FasterPrecision();

}  // namespace fovea::compute::cpu
