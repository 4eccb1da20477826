// How many processors there are for this process.
#pragma once

#include <filesystem>

namespace fovea {

// At least one: those that it may run on (its affinity), or fewer where its control groups bound
// the processor time that it gets: a group with the time of one and a half gives two. `root` stands
// for
// "/" in tests. Takes tens of microseconds.
int NumProcessors(const std::filesystem::path& root = "/");

}  // namespace fovea
