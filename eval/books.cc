#include "eval/books.h"

#include <utility>

#include "base/strings.h"
#include "texts/record_file.h"

namespace fovea::eval {
namespace {

constexpr char kNoTexts[] =
    "no texts: pass --texts FILE, JSON records with `text`, one a line (.jsonl, .jsonl.zst)";

}  // namespace

std::string FirstTokens(const std::string& text, const model::Tokenizer& tokenizer,
                        int64_t n_tokens) {
  const model::Encoding encoding = tokenizer.Encode(text);
  const auto n = static_cast<size_t>(n_tokens);
  if (n >= encoding.ids.size()) return text;
  return n == 0 ? std::string() : text.substr(0, encoding.ends[n - 1]);
}

absl::StatusOr<std::vector<std::string>> ReadTexts(const std::vector<std::filesystem::path>& files,
                                                   size_t n_bytes) {
  std::vector<std::string> texts;
  size_t n_read = 0;
  for (const std::filesystem::path& file : files) {
    if (n_read >= n_bytes) break;
    RETURN_IF_ERROR(texts::ReadRecords(file, [&](texts::Record record) -> absl::StatusOr<bool> {
      n_read += record.text.size();
      if (!record.text.empty()) texts.push_back(std::move(record.text));
      return n_read < n_bytes;
    }));
  }
  if (texts.empty()) return absl::InvalidArgumentError(kNoTexts);
  return texts;
}

absl::StatusOr<std::vector<Book>> ReadBooks(const std::vector<std::filesystem::path>& files,
                                            const model::Tokenizer& tokenizer, int64_t n_tokens,
                                            const Progress& progress) {
  std::vector<Book> books;
  if (n_tokens == 0) return books;
  if (files.empty()) return absl::InvalidArgumentError(kNoTexts);
  int64_t n_read = 0;
  for (const std::filesystem::path& file : files) {
    if (n_read >= n_tokens) break;
    RETURN_IF_ERROR(texts::ReadRecords(file, [&](texts::Record record) -> absl::StatusOr<bool> {
      if (record.text.empty()) return true;  // a question
      Book book{.title = std::move(record.title), .text = std::move(record.text)};
      book.n_tokens = static_cast<int64_t>(tokenizer.Encode(book.text).ids.size());
      if (n_read + book.n_tokens > n_tokens) {
        book.text = FirstTokens(book.text, tokenizer, n_tokens - n_read);
        book.n_tokens = n_tokens - n_read;
      }
      n_read += book.n_tokens;
      if (book.n_tokens > 0) books.push_back(std::move(book));
      RETURN_IF_ERROR(progress.Report(
          {.stage = "read texts", .done = n_read, .total = n_tokens, .unit = "tokens"}));
      return n_read < n_tokens;
    }));
  }
  if (n_read < n_tokens) {
    return absl::InvalidArgumentError(
        StrCat("the texts hold ", n_read, " tokens, and ", n_tokens,
               " are wanted: pass more files with --texts, or a smaller --tokens"));
  }
  return books;
}

std::vector<Document> ToDocuments(const std::vector<Book>& books, const std::string& collection) {
  std::vector<Document> documents;
  documents.reserve(books.size());
  for (const Book& book : books) {
    documents.push_back(
        {.source = StrCat("book ", documents.size()), .text = book.text, .collection = collection});
  }
  return documents;
}

}  // namespace fovea::eval
