// Small files for the tests of documents/, and what ReadDocuments makes of them.
#pragma once

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "documents/text_document.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::documents {

// A folder of its own for each test, removed after it.
class DocumentFilesTest : public ::testing::Test {
 protected:
  DocumentFilesTest() {
    std::string name = (std::filesystem::temp_directory_path() / "fovea-test-XXXXXX").native();
    folder_ = mkdtemp(name.data());
    chmod(folder_.c_str(), 0755);
  }
  ~DocumentFilesTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  std::filesystem::path Write(const std::string& name, std::string_view bytes) {
    const std::filesystem::path path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  std::filesystem::path folder_;
};

// While it lives, this process has no right that a file's mode does not give: root may read all.
class Unprivileged {
 public:
  Unprivileged() : user_(geteuid()) { ok_ = user_ != 0 || seteuid(65534) == 0; }
  ~Unprivileged() { EXPECT_EQ(seteuid(user_), 0); }
  bool ok() const { return ok_; }

 private:
  uid_t user_;
  bool ok_;
};

struct Visited {
  std::string source;
  absl::Status status;
  std::unique_ptr<TextDocument> document;
};

inline std::vector<Visited> Visit(const std::filesystem::path& path,
                                  const ReadLimits& limits = {}) {
  std::vector<Visited> visited;
  const absl::Status status =
      ReadDocuments(path, limits, [&](const std::string& source, auto document) -> absl::Status {
        visited.push_back({source, document.status(), nullptr});
        if (document.ok()) visited.back().document = *std::move(document);
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  return visited;
}

// The one document of `path`; null (and a failure) when there is another number or an error.
inline std::unique_ptr<TextDocument> Open(const std::filesystem::path& path,
                                          const ReadLimits& limits = {}) {
  std::vector<Visited> visited = Visit(path, limits);
  EXPECT_EQ(visited.size(), 1u);
  if (visited.size() != 1) return nullptr;
  EXPECT_TRUE(visited[0].status.ok()) << visited[0].status;
  return std::move(visited[0].document);
}

// The one error of `path`.
inline absl::Status OpenError(const std::filesystem::path& path, const ReadLimits& limits = {}) {
  std::vector<Visited> visited = Visit(path, limits);
  EXPECT_EQ(visited.size(), 1u);
  return visited.empty() ? absl::OkStatus() : visited[0].status;
}

// The whole text in pieces of at most `piece_bytes`, each checked to end between characters.
inline absl::StatusOr<std::string> ReadText(TextDocument& document, size_t piece_bytes = 1 << 16) {
  std::string text;
  while (true) {
    std::string piece;
    RETURN_IF_ERROR(document.Read(piece_bytes, &piece));
    if (piece.empty()) return text;
    EXPECT_LE(piece.size(), piece_bytes);
    EXPECT_NE(static_cast<unsigned char>(piece.front()) & 0xC0, 0x80) << "cut inside a character";
    text += piece;
  }
}

// The text of `path`'s one document, read twice, in large and in the smallest pieces.
inline std::string TextOf(const std::filesystem::path& path, const ReadLimits& limits = {}) {
  const std::unique_ptr<TextDocument> document = Open(path, limits);
  if (document == nullptr) return "(no document)";
  const absl::StatusOr<std::string> text = ReadText(*document);
  EXPECT_TRUE(text.ok()) << text.status();
  EXPECT_TRUE(document->Rewind().ok());
  const absl::StatusOr<std::string> again = ReadText(*document, 4);
  EXPECT_TRUE(again.ok()) << again.status();
  if (!text.ok() || !again.ok()) return "(unreadable)";
  EXPECT_EQ(*text, *again);
  return *text;
}

MATCHER_P2(IsStatus, code, message, "") {
  return arg.code() == code &&
         ::testing::ExplainMatchResult(::testing::HasSubstr(message), std::string(arg.message()),
                                       result_listener);
}

}  // namespace fovea::documents
