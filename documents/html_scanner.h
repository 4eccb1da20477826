// A page of HTML as a sequence of tags and of what lies between them, as the standard's tokenizer
// cuts it. Names and entities are left as they are written.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace fovea::documents {

struct HtmlTag {
  std::string_view name;  // as written, in either case
  bool is_end = false;
  bool is_self_closing = false;
  bool is_hidden = false;  // has the attribute `hidden`, or a style that says so
  size_t n_attributes = 0;
};

// Not thread-safe; gives views of `page`. Time linear in the page's size.
class HtmlScanner {
 public:
  explicit HtmlScanner(std::string_view page) : rest_(page) {}

  struct Piece {
    std::string_view text;       // as written; empty: the page's end
    std::optional<HtmlTag> tag;  // else it is text, a comment, a document type, or a tag cut off
  };
  // In foreign content (SVG, MathML) CDATA is text.
  Piece Next(bool is_foreign);

  // Behind the start of an element whose content has no markup (<script>, <title>): the content up
  // to the tag that ends it.
  std::string_view TakeRawText(std::string_view name);
  std::string_view TakeRest() { return Take(rest_.size()); }

 private:
  std::string_view Take(size_t size);
  // From the start of a construct to behind `end`, or to the page's end.
  std::string_view TakeThrough(std::string_view end, size_t from);
  std::string_view TakeComment();

  std::string_view rest_;
};

// Whether the attribute `style` hides its element: "display: none", unless a later declaration says
// otherwise.
bool IsHiddenByStyle(std::string_view style);

// Whether two names of elements are the same in either case; both in ASCII.
bool IsSameName(std::string_view a, std::string_view b);

}  // namespace fovea::documents
