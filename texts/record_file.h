// Files of JSON records, one a line, plain or compressed: books, and questions on contexts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace fovea::texts {

// The lines of a file, decompressed where its name ends in .zst or .gz; memory holds one of them
// and about a MiB. Not thread-safe.
class LineReader {
 public:
  // NotFound, PermissionDenied or Internal, with the path.
  static absl::StatusOr<std::unique_ptr<LineReader>> Open(const std::filesystem::path& path);
  ~LineReader();

  // False at the end. *line is without its newline. DataLoss where the file is cut off or not
  // compressed as its name says; InvalidArgument for a line of more than a GiB.
  absl::StatusOr<bool> Next(std::string* line);

 private:
  struct Impl;
  explicit LineReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Gives each line of a file to `visit`, until it returns false; blank ones are passed over. Errors
// of `visit` begin with file and line.
absl::Status ReadLines(const std::filesystem::path& file,
                       const std::function<absl::StatusOr<bool>(const std::string& line)>& visit);

// A book (`text` is not empty), or a question on a context.
struct Record {
  std::string text = {};
  std::string title = {};  // may be empty
  std::string context = {};
  std::string question = {};
  std::vector<std::string> answers = {};  // at least one, the first is not empty
};

// With `text`: a book. With `context`, `question` and `answers` (strings; `answer` with one): a
// question. InvalidArgument for anything else.
absl::StatusOr<Record> ParseRecord(const std::string& line);

// Gives each record of a file to `visit`, until it returns false.
// InvalidArgument, with file and line, for a record of neither kind and for a file without records.
absl::Status ReadRecords(const std::filesystem::path& file,
                         const std::function<absl::StatusOr<bool>(Record record)>& visit);

}  // namespace fovea::texts
