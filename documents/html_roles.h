// What elements of HTML mean for a page's text.
#pragma once

#include <gumbo.h>

namespace fovea::documents {

enum class HtmlRole {
  kInline,
  kSkipped,  // what is in it is no text of the page
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
