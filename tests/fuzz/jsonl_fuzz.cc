// JSONL files, read by a small limit too, so that long lines are in reach.
#include "documents/text_document.h"
#include "documents/utf8.h"
#include "fuzz_input.h"

namespace {

using fovea::documents::TextDocument;

void Check(const std::filesystem::path& path, size_t max_line_bytes) {
  fovea::documents::ReadLimits limits;
  limits.max_jsonl_line_bytes = max_line_bytes;
  const absl::Status status = fovea::documents::ReadDocuments(
      path, limits,
      [&](const std::string& source, absl::StatusOr<std::unique_ptr<TextDocument>> document) {
        fovea::fuzz::Require(!source.empty(), "every document has a source");
        fovea::fuzz::CheckMessage(document.status());
        if (!document.ok()) return absl::OkStatus();
        std::string text;
        for (size_t before = 1; before != text.size();) {
          before = text.size();
          const absl::Status read = (*document)->Read(7, &text);
          fovea::fuzz::Require(read.ok(), "a record's text can be read");
          if (before == text.size()) break;
        }
        for (const std::string& checked : {text, (*document)->title, (*document)->source}) {
          fovea::fuzz::Require(fovea::documents::ScanUtf8(checked).valid_bytes == checked.size(),
                               "valid UTF-8");
        }
        fovea::fuzz::Require(!fovea::documents::IsBlank(text), "no document is blank");
        return absl::OkStatus();
      });
  fovea::fuzz::Require(status.ok(), "only visitors end the reading");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fovea::fuzz::ScratchFolder folder;
  folder.Write("records.jsonl", "x");  // an empty file is a file, too
  const auto path = folder.Write("records.jsonl", fovea::fuzz::AsView(data, size));
  if (size == 0) return 0;
  Check(path, size_t{1} << 20);
  Check(path, 16);
  return 0;
}
