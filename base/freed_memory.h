// What malloc keeps of what was freed, for processes that run for long.
#pragma once

namespace fovea {

// From now on this process's malloc gives back to the system what it need not keep: pieces of 1 MiB
// and more when they are freed, and in each of its arenas all but 4 MiB of what lies free at the
// end. For programs, at their start: a library does not choose for its user. Where the C library is
// not glibc nothing is changed.
void KeepLittleFreedMemory();

}  // namespace fovea
