// The XML of DOCX, ODT and EPUB. An input is one part, or several with NUL bytes between them; the
// archives around them are made here, so that their checksums do not stop the mutations.
#include <string>

#include "documents/utf8.h"
#include "documents/zip_document.h"
#include "fuzz_input.h"
#include "tests/base/make_zip.h"

namespace {

class CheckingReceiver : public fovea::documents::TextReceiver {
 public:
  void Title(std::string_view title) override { Check(title); }
  bool Text(std::string_view text) override {
    Check(text);
    n_bytes_ += text.size();
    return n_bytes_ < (size_t{1} << 20);
  }
  void Warning(std::string_view warning) override { Check(warning); }

 private:
  static void Check(std::string_view text) {
    fovea::fuzz::Require(fovea::documents::ScanUtf8(text).valid_bytes == text.size(),
                         "text is valid UTF-8 without NUL bytes");
  }
  size_t n_bytes_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input = fovea::fuzz::AsView(data, size);
  const std::string first(fovea::fuzz::TakePart(&input));
  const std::string second(fovea::fuzz::TakePart(&input));
  const std::string third(input);
  fovea::documents::ReadLimits limits;
  limits.max_html_tree_bytes = size_t{64} << 20;
  limits.max_html_parse_seconds = 5;
  const std::vector<fovea::ZipFile> archives[] = {
      {{"word/document.xml", first},
       {"word/footnotes.xml", second},
       {"docProps/core.xml", third},
       {"word/_rels/document.xml.rels", third}},
      {{"mimetype", "application/vnd.oasis.opendocument.text"},
       {"content.xml", first},
       {"meta.xml", second}},
      {{"META-INF/container.xml", first}, {"b.opf", second}, {"1.xhtml", third}},
      {{"META-INF/container.xml", "<c><rootfile full-path=\"b.opf\"/></c>"},
       {"b.opf", first},
       {"1.xhtml", second}},
  };
  for (const auto& files : archives) {
    const std::string bytes = fovea::MakeZip(files);
    const auto archive = fovea::ZipArchive::Open(bytes);
    fovea::fuzz::Require(archive.ok(), "an archive that was made right");
    CheckingReceiver receiver;
    std::string kind;
    std::string_view empty_kind;
    fovea::fuzz::CheckMessage(
        fovea::documents::ReadZipDocument(*archive, limits, receiver, &kind, &empty_kind));
  }
  return 0;
}
