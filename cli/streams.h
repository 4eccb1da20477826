// Standard input by lines and standard output by results, with the errors that streams of the
// library hide: an interrupted read, a closed pipe, a full disk.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea::cli {

// Puts /dev/null where a standard descriptor is closed, for the wrong direction (what is read or
// written there fails, as it would have): else the next file that is opened, say one of the
// store's, takes its number, and messages go into it. Call it before any file is opened. False
// when that is not possible.
bool OccupyStandardDescriptors();

// Lines of a file descriptor, without their ends ("\n"; a "\r" stays). Not thread-safe.
class LineReader {
 public:
  explicit LineReader(int file_descriptor) : file_descriptor_(file_descriptor) {}
  // False at the end. Cancelled when a signal interrupts; ResourceExhausted for a line above 64
  // MiB.
  absl::StatusOr<bool> Next(std::string* line);
  // Whether Next has a line to give, or an error, without waiting for more input.
  bool NextIsReady();

 private:
  // Reads a piece, waiting for it: what there is, or the end.
  absl::Status Read();

  int file_descriptor_;
  std::string buffer_;
  size_t begin_ = 0;
  bool at_end_ = false;
};

// Writes all of `text` to standard output. Aborted when the reader closed the pipe.
absl::Status WriteOutput(std::string_view text);

}  // namespace fovea::cli
