#include "serve/page/page.h"

#include <algorithm>
#include <string>

#include "documents/utf8.h"
#include "serve/errors.h"

namespace fovea::serve {
namespace {

constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

std::string_view ContentType(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "image/svg+xml";
}

// Whether If-None-Match names `tag`, in its weak form as well, or "*": any (RFC 9110, 13.1.2).
bool IsOneOf(std::string_view tag, std::string_view if_none_match) {
  const size_t begin = if_none_match.find_first_not_of(" \t");
  const size_t end = if_none_match.find_last_not_of(" \t");
  const bool is_any =
      begin != std::string_view::npos && begin == end && if_none_match[begin] == '*';
  return is_any || if_none_match.find(tag) != std::string_view::npos;
}

}  // namespace

HttpResponse PageResponse(std::string_view name, std::string_view if_none_match) {
  const std::span<const PageFile> files = PageFiles();
  const auto file = std::find_if(files.begin(), files.end(),
                                 [&](const PageFile& one) { return one.name == name; });
  if (file == files.end()) {
    return ErrorResponse(404, StrCat("the page has no file ", documents::OneLine(name, 200)));
  }
  const std::string tag = StrCat("\"", file->sha256, "\"");
  HttpResponse response{.content_type = std::string(ContentType(name)),
                        .headers = {{"ETag", tag},
                                    {"Cache-Control", "no-cache"},
                                    {"Content-Security-Policy", std::string(kPolicy)},
                                    {"Referrer-Policy", "no-referrer"},
                                    {"Cross-Origin-Resource-Policy", "same-origin"}}};
  if (IsOneOf(tag, if_none_match)) {
    response.status = 304;
  } else {
    response.body = std::string(file->text);
  }
  return response;
}

}  // namespace fovea::serve
