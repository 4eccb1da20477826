// Which sources of a folder are gone, after its files were read: those of files that are no longer
// there, and records that their file no longer has.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::memory {

// Names are sources as documents::SourceOfPath makes them. Not thread-safe.
class GoneSources {
 public:
  // Of these folders (or files); sources elsewhere are never gone.
  explicit GoneSources(std::vector<std::string> roots) : roots_(std::move(roots)) {}

  // All of this file was read: what it did not have is gone.
  void AddRead(const std::string& file) { read_.insert(file); }
  // This file or folder, or a part of it, was not read (an error, nothing new): nothing of it is
  // taken for gone.
  void AddUnread(const std::string& path) { unread_.insert(path); }

  // Whether `source`, which was not met while the files were read, is gone. Looks at the file
  // system: a file that is there but was not read (of a kind that is left out, hidden) is not gone.
  bool IsGone(const std::string& source) const;

 private:
  std::vector<std::string> roots_;
  std::set<std::string> read_;
  std::set<std::string> unread_;
};

}  // namespace fovea::memory
