// HTML pages.
#include "documents/html.h"
#include "documents/utf8.h"
#include "fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes = fovea::fuzz::AsView(data, size);
  // The reader passes nothing else on.
  const std::string_view html = bytes.substr(0, fovea::documents::ScanUtf8(bytes).valid_bytes);
  fovea::documents::ReadLimits limits;
  limits.max_html_tree_bytes = size_t{64} << 20;
  limits.max_html_parse_seconds = 5;
  const auto page = fovea::documents::ExtractHtml(html, limits);
  fovea::fuzz::CheckMessage(page.status());
  if (!page.ok()) return 0;
  for (const std::string& text : {page->text, page->title}) {
    fovea::fuzz::Require(fovea::documents::ScanUtf8(text).valid_bytes == text.size(),
                         "valid UTF-8 stays valid");
  }
  // Character references make at most as much of what they are written with.
  fovea::fuzz::Require(page->text.size() <= 3 * html.size() + 16, "text no longer than its markup");
  return 0;
}
