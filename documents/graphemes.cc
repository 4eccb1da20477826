#include "documents/graphemes.h"

#include <utf8proc.h>

#include <algorithm>

namespace fovea::documents {
namespace {

// How many bytes of `text`, which is not empty, are a code point, *c; 0: they are not UTF-8.
size_t ReadCodePoint(std::string_view text, utf8proc_int32_t* c) {
  const utf8proc_ssize_t size =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(text.size()), c);
  return size > 0 ? static_cast<size_t>(size) : 0;
}

}  // namespace

std::string_view FirstGrapheme(std::string_view text, size_t max_characters) {
  if (text.empty()) return text;
  utf8proc_int32_t last = 0;
  size_t size = ReadCodePoint(text, &last);
  if (size == 0) return text.substr(0, 1);
  utf8proc_int32_t state = 0;
  for (size_t n = 1; n < max_characters && size < text.size(); ++n) {
    utf8proc_int32_t next = 0;
    const size_t more = ReadCodePoint(text.substr(size), &next);
    if (more == 0 || utf8proc_grapheme_break_stateful(last, next, &state)) break;
    size += more;
    last = next;
  }
  return text.substr(0, size);
}

}  // namespace fovea::documents
