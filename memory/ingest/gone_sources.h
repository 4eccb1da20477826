// Which sources of a folder are gone, after its files were read: those that reading the folder
// again would not give.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::memory {

// Names are sources as documents::SourceOfPath makes them. Not thread-safe.
class GoneSources {
 public:
  // Of these folders (or files); sources elsewhere are never gone.
  explicit GoneSources(const std::vector<std::string>& roots)
      : roots_(roots.begin(), roots.end()) {}

  // All of this file was read: what it did not have is gone.
  void AddRead(const std::string& file) { read_.insert(file); }
  // This file or folder, or a part of it, was not read (an error, nothing new): nothing of it is
  // taken for gone.
  void AddUnread(const std::string& path) { unread_.insert(path); }
  // This is never read (a link to a folder, a FIFO): all of it is gone, whatever is there.
  void AddLeftOut(const std::string& path) { left_out_.insert(path); }

  // Whether `source`, which was not met while the files were read, is gone: its file is no file
  // any more (nothing, a folder, a link to nothing, a FIFO), or was read without it. Looks at the
  // file system: a file that is there but was not looked at (a hidden one that was named itself,
  // one that came meanwhile) is not gone, nor is what cannot be looked at.
  bool IsGone(const std::string& source) const;

 private:
  using Paths = std::set<std::string, std::less<>>;

  Paths roots_;
  Paths read_;
  Paths unread_;
  Paths left_out_;
};

}  // namespace fovea::memory
