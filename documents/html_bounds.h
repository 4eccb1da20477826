// Pages of HTML that would take a parser long, made fit for it. A parser looks through the elements
// that are open, the formatting elements that were never closed and an element's attributes again
// and again: where there are many thousands of them, its time is quadratic in the page's size.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace fovea::documents {

struct MarkupBounds {
  size_t max_depth = 256;  // browsers stop at 512; what people write does not come near
  size_t max_open_formatting = 32;
  size_t max_attributes = 64;
};

// nullopt: the page keeps within the bounds, as nearly all do. Else the page without the tags that
// go beyond them: all its text is there, blocks of the innermost elements become lines, what
// hidden elements and those without text hold stays left out, and formatting is gone. Time linear
// in the page's size, whatever it is.
std::optional<std::string> BoundMarkup(std::string_view html, const MarkupBounds& bounds = {});

}  // namespace fovea::documents
