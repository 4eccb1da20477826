// The folder of an evaluation's memories: one that the user named, or a temporary one that goes
// with the process, or, where that was killed, with the next evaluation.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "base/status.h"

namespace fovea::cli {

class EvalWorkplace {
 public:
  // `named`: empty for a temporary folder. Removes what others have left that are gone.
  static absl::StatusOr<std::unique_ptr<EvalWorkplace>> Create(const std::string& named);
  // Removes the folder, if it is a temporary one.
  ~EvalWorkplace();
  EvalWorkplace(const EvalWorkplace&) = delete;
  EvalWorkplace& operator=(const EvalWorkplace&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  EvalWorkplace(std::filesystem::path path, int lock) : path_(std::move(path)), lock_(lock) {}

  const std::filesystem::path path_;
  const int lock_;  // held as long as the process lives; −1: the folder was named
};

}  // namespace fovea::cli
