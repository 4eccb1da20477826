#include "documents/zip_document.h"

#include <utility>

#include "documents/confined_document.h"
#include "documents/docx.h"
#include "documents/epub.h"
#include "documents/file_kind.h"
#include "documents/odt.h"

namespace fovea::documents {
namespace {

// What the member `mimetype` says, which EPUB and OpenDocument put first.
std::string MediaType(const ZipArchive& archive) {
  constexpr uint64_t kMaxBytes = 256;
  const ZipMember* member = archive.Find("mimetype");
  if (member == nullptr) return "";
  std::string type = archive.Read(*member, kMaxBytes).value_or("");
  type.resize(type.find_last_not_of(" \r\n") + 1);
  return type;
}

std::string_view KindOfArchive(const ZipArchive& archive, std::string_view media_type) {
  constexpr std::string_view kOpenDocument = "application/vnd.oasis.opendocument.";
  if (media_type.starts_with(kOpenDocument)) {
    media_type.remove_prefix(kOpenDocument.size());
    if (media_type.starts_with("spreadsheet")) return kSpreadsheetKind;
    if (media_type.starts_with("presentation")) return kPresentationKind;
    return kDrawingKind;
  }
  if (archive.Find("xl/workbook.xml") != nullptr) return kSpreadsheetKind;
  if (archive.Find("xl/workbook.bin") != nullptr) return kSpreadsheetKind;
  if (archive.Find("ppt/presentation.xml") != nullptr) return kPresentationKind;
  if (archive.Find("AndroidManifest.xml") != nullptr) return "Android package";
  if (archive.Find("META-INF/MANIFEST.MF") != nullptr) return "Java archive";
  return kZipKind;
}

// Passes on to the parent process.
class SendingReceiver : public TextReceiver {
 public:
  explicit SendingReceiver(TextSender* sender) : sender_(*sender) {}
  void Title(std::string_view title) override { sender_.SendTitle(title); }
  bool Text(std::string_view text) override {
    any_text_ |= !text.empty();
    return sender_.SendText(text);
  }
  void Warning(std::string_view warning) override { sender_.SendWarning(warning); }
  bool any_text() const { return any_text_; }

 private:
  bool any_text_ = false;
  TextSender& sender_;
};

// In the child.
absl::Status Read(InputFile& file, bool is_named, const ReadLimits& limits, TextSender& sender) {
  ASSIGN_OR_RETURN(const std::string bytes, file.ReadAll(limits.max_zip_bytes, "it"));
  std::string kind(kZipKind);
  const absl::StatusOr<ZipArchive> archive = ZipArchive::Open(bytes);
  if (archive.ok()) {
    SendingReceiver receiver(&sender);
    std::string_view empty_kind;
    RETURN_IF_ERROR(ReadZipDocument(*archive, limits, receiver, &kind, &empty_kind));
    if (kind.empty() && !receiver.any_text()) sender.SendEmpty(empty_kind);
  } else if (is_named) {
    return archive.status();
  }
  if (!kind.empty()) sender.SendNoText(kind);
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadZipDocument(const ZipArchive& archive, const ReadLimits& limits,
                             TextReceiver& receiver, std::string* kind,
                             std::string_view* empty_kind) {
  kind->clear();
  const std::string media_type = MediaType(archive);
  if (media_type == "application/epub+zip" || archive.Find("META-INF/container.xml") != nullptr) {
    *empty_kind = kEmptyEpubKind;
    return ReadEpub(archive, limits, receiver);
  }
  if (media_type.starts_with("application/vnd.oasis.opendocument.text")) {
    *empty_kind = kEmptyOdtKind;
    return ReadOdt(archive, limits, receiver);
  }
  if (!DocxMainPart(archive).empty()) {
    *empty_kind = kEmptyDocxKind;
    return ReadDocx(archive, limits, receiver);
  }
  *kind = std::string(KindOfArchive(archive, media_type));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TextDocument>> OpenZipDocument(std::unique_ptr<InputFile> file,
                                                              bool is_named,
                                                              const ReadLimits& limits) {
  if (file->size_bytes() > limits.max_zip_bytes && !is_named) {
    return NoTextError(file->name(), kZipKind);
  }
  InputFile* input = file.get();
  const auto read = [input, is_named, limits](TextSender& sender) {
    const absl::Status status = Read(*input, is_named, limits, sender);
    if (!status.ok()) sender.SendError(status);
  };
  // The child holds the archive itself, too.
  const ProcessLimits process_limits = {limits.max_zip_memory_bytes + file->size_bytes(),
                                        limits.max_zip_seconds};
  return OpenConfined(std::move(file), {.format = "document in a ZIP archive",
                                        .advice = "save it as text or PDF",
                                        .limits = process_limits,
                                        .max_text_bytes = limits.max_zip_text_bytes,
                                        .read = read});
}

}  // namespace fovea::documents
