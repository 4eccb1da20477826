// What elements of HTML mean for a page's text.
#pragma once

#include <gumbo.h>

namespace fovea::documents {

enum class HtmlRole {
  kInline,
  kInlineBlock,  // within a line, but set apart from what is beside it
  kSkipped,      // what is in it is no text of the page
  kReplaced,     // the same, but it stands between what is beside it
  kTitle,
  kLine,
  kParagraph,
  kList,
  kHeading1,
  kPre,
  kCell,
  kBr,
  kRule
};

HtmlRole RoleOf(GumboTag tag);

}  // namespace fovea::documents
