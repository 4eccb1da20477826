// Long texts that memories are filled with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "eval/subject.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::eval {

struct Book {
  std::string title;
  std::string text;
  int64_t n_tokens = 0;
};

// Texts of the files (texts/record_file.h), from the first on, n_tokens of them in all: the last
// one is cut. InvalidArgument where they hold fewer, or no `--texts` were given.
absl::StatusOr<std::vector<Book>> ReadBooks(const std::vector<std::filesystem::path>& files,
                                            const model::Tokenizer& tokenizer, int64_t n_tokens,
                                            const Progress& progress);

// The whole texts of the files, from the first on, until there are n_bytes of them. InvalidArgument
// where there is none.
absl::StatusOr<std::vector<std::string>> ReadTexts(const std::vector<std::filesystem::path>& files,
                                                   size_t n_bytes);

// The first `n_tokens` of a text, cut between characters.
std::string FirstTokens(const std::string& text, const model::Tokenizer& tokenizer,
                        int64_t n_tokens);

// "book 3": sources of a memory.
std::vector<Document> ToDocuments(const std::vector<Book>& books, const std::string& collection);

}  // namespace fovea::eval
