#include "documents/xhtml.h"

#include <algorithm>

#include "documents/utf8.h"

namespace fovea::documents {
namespace {

// Elements without content in HTML: "<br/>" means the same there.
constexpr std::string_view kVoid[] = {"area",  "base", "br",   "col",   "embed",  "hr",    "img",
                                      "input", "link", "meta", "param", "source", "track", "wbr"};

// From behind the start of a construct to behind `end`, which is part of it.
std::string_view TakeUntil(std::string_view* page, std::string_view end) {
  const size_t at = page->find(end);
  const size_t size = at == std::string_view::npos ? page->size() : at + end.size();
  const std::string_view taken = page->substr(0, size);
  page->remove_prefix(size);
  return taken;
}

// Behind the ">" of the tag at the start of `page`; ">" within quotes is part of a value.
size_t TagSize(std::string_view page) {
  char quote = '\0';
  for (size_t i = 1; i < page.size(); ++i) {
    if (quote != '\0') {
      if (page[i] == quote) quote = '\0';
    } else if (page[i] == '"' || page[i] == '\'') {
      quote = page[i];
    } else if (page[i] == '>') {
      return i + 1;
    }
  }
  return page.size();
}

void AppendEscaped(std::string_view text, std::string* html) {
  for (const char c : text) {
    if (c == '<') {
      *html += "&lt;";
    } else if (c == '&') {
      *html += "&amp;";
    } else {
      html->push_back(c);
    }
  }
}

void AppendTag(std::string_view tag, std::string* html) {
  const size_t name_end = std::min(tag.find_first_of(" \t\r\n/>", 1), tag.size());
  const std::string_view name = tag.substr(1, name_end - 1);
  const bool is_void = std::find(std::begin(kVoid), std::end(kVoid), name) != std::end(kVoid);
  if (!tag.ends_with("/>") || is_void || name.empty()) {
    *html += tag;
    return;
  }
  *html += tag.substr(0, tag.size() - 2);
  *html += "></";
  *html += name;
  *html += ">";
}

}  // namespace

bool IsXhtml(std::string_view page) {
  if (page.starts_with(kByteOrderMark)) page.remove_prefix(kByteOrderMark.size());
  return page.starts_with("<?xml");
}

std::string XhtmlToHtml(std::string_view page) {
  constexpr std::string_view kCdata = "<![CDATA[";
  constexpr std::string_view kCdataEnd = "]]>";
  std::string html;
  html.reserve(page.size());
  while (!page.empty()) {
    const size_t text_size = std::min(page.find('<'), page.size());
    html += page.substr(0, text_size);
    page.remove_prefix(text_size);
    if (page.starts_with("<!--")) {
      TakeUntil(&page, "-->");
    } else if (page.starts_with("<?")) {
      TakeUntil(&page, "?>");
    } else if (page.starts_with(kCdata)) {
      page.remove_prefix(kCdata.size());
      std::string_view text = TakeUntil(&page, kCdataEnd);
      if (text.ends_with(kCdataEnd)) text.remove_suffix(kCdataEnd.size());
      AppendEscaped(text, &html);
    } else if (page.starts_with("<!DOCTYPE")) {
      const size_t end = std::min(page.find_first_of("[>"), page.size());
      const bool has_declarations = page.substr(end).starts_with('[');
      html += page.substr(0, end);
      html += '>';
      if (has_declarations) TakeUntil(&page, "]");
      TakeUntil(&page, ">");
    } else if (!page.empty()) {
      const size_t size = TagSize(page);
      AppendTag(page.substr(0, size), &html);
      page.remove_prefix(size);
    }
  }
  return html;
}

}  // namespace fovea::documents
