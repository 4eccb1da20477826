#include "documents/text_document.h"

#include <algorithm>
#include <utility>

#include "documents/html.h"
#include "documents/input_file.h"
#include "documents/jsonl.h"
#include "documents/names.h"
#include "documents/pdf.h"
#include "documents/plain_text.h"
#include "documents/titles.h"

namespace fovea::documents {
namespace {

std::string LowerCaseExtension(const std::filesystem::path& path) {
  std::string extension = path.extension().native();
  for (char& c : extension) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return extension;
}

}  // namespace

bool HasReader(const std::filesystem::path& path) {
  static constexpr std::string_view kExtensions[] = {".txt", ".md",    ".markdown", ".html",
                                                     ".htm", ".jsonl", ".pdf"};
  const std::string extension = LowerCaseExtension(path);
  return std::find(std::begin(kExtensions), std::end(kExtensions), extension) !=
         std::end(kExtensions);
}

absl::Status ReadDocuments(const std::filesystem::path& path, const ReadLimits& limits,
                           Visitor visit) {
  absl::StatusOr<std::string> source = SourceOfPath(path);
  if (!source.ok()) return visit(PrintableName(path.native()), source.status());
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(path, *source);
  if (!file.ok()) return visit(*source, file.status());

  const std::string extension = LowerCaseExtension(path);
  if (extension == ".jsonl") return ReadJsonl(**file, limits, visit);
  absl::StatusOr<std::unique_ptr<TextDocument>> document =
      extension == ".html" || extension == ".htm" ? OpenHtml(**file, limits)
      : extension == ".pdf"                       ? OpenPdf(path, *std::move(file), limits)
      : extension == ".md" || extension == ".markdown"
          ? OpenPlainText(*std::move(file), TextKind::kMarkdown)
          : OpenPlainText(*std::move(file), TextKind::kPlain);
  if (document.ok() && (*document)->title.empty()) (*document)->title = FileTitle(path);
  return visit(*source, std::move(document));
}

}  // namespace fovea::documents
