#include "documents/html_bounds.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "documents/html_roles.h"
#include "documents/html_scanner.h"

namespace fovea::documents {
namespace {

// ---- What the standard says of elements ----

bool IsVoid(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_AREA:
    case GUMBO_TAG_BASE:
    case GUMBO_TAG_BASEFONT:
    case GUMBO_TAG_BGSOUND:
    case GUMBO_TAG_BR:
    case GUMBO_TAG_COL:
    case GUMBO_TAG_EMBED:
    case GUMBO_TAG_FRAME:
    case GUMBO_TAG_HR:
    case GUMBO_TAG_IMAGE:
    case GUMBO_TAG_IMG:
    case GUMBO_TAG_INPUT:
    case GUMBO_TAG_ISINDEX:
    case GUMBO_TAG_KEYGEN:
    case GUMBO_TAG_LINK:
    case GUMBO_TAG_MENUITEM:
    case GUMBO_TAG_META:
    case GUMBO_TAG_PARAM:
    case GUMBO_TAG_SOURCE:
    case GUMBO_TAG_TRACK:
    case GUMBO_TAG_WBR:
      return true;
    default:
      return false;
  }
}

// The next one closes it, or there is one at most: they do not nest.
bool NeverNests(GumboTag tag) {
  return tag == GUMBO_TAG_P || tag == GUMBO_TAG_HTML || tag == GUMBO_TAG_HEAD ||
         tag == GUMBO_TAG_BODY;
}

bool HasRawText(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_IFRAME:
    case GUMBO_TAG_NOEMBED:
    case GUMBO_TAG_NOFRAMES:
    case GUMBO_TAG_PLAINTEXT:
    case GUMBO_TAG_SCRIPT:
    case GUMBO_TAG_STYLE:
    case GUMBO_TAG_TEXTAREA:
    case GUMBO_TAG_TITLE:
    case GUMBO_TAG_XMP:
      return true;
    default:
      return false;
  }
}

bool IsFormatting(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_A:
    case GUMBO_TAG_B:
    case GUMBO_TAG_BIG:
    case GUMBO_TAG_CODE:
    case GUMBO_TAG_EM:
    case GUMBO_TAG_FONT:
    case GUMBO_TAG_I:
    case GUMBO_TAG_NOBR:
    case GUMBO_TAG_S:
    case GUMBO_TAG_SMALL:
    case GUMBO_TAG_STRIKE:
    case GUMBO_TAG_STRONG:
    case GUMBO_TAG_TT:
    case GUMBO_TAG_U:
      return true;
    default:
      return false;
  }
}

bool IsHeading(GumboTag tag) { return tag >= GUMBO_TAG_H1 && tag <= GUMBO_TAG_H6; }

bool IsCell(GumboTag tag) { return tag == GUMBO_TAG_TD || tag == GUMBO_TAG_TH; }

bool IsTableBody(GumboTag tag) {
  return tag == GUMBO_TAG_TBODY || tag == GUMBO_TAG_THEAD || tag == GUMBO_TAG_TFOOT;
}

// Of which a table is made.
bool IsTablePart(GumboTag tag) {
  return IsCell(tag) || IsTableBody(tag) || tag == GUMBO_TAG_TR || tag == GUMBO_TAG_CAPTION ||
         tag == GUMBO_TAG_COLGROUP;
}

// An end tag outside of it does not reach into it.
bool IsScope(GumboTag tag) {
  return tag == GUMBO_TAG_TABLE || IsCell(tag) || tag == GUMBO_TAG_CAPTION ||
         tag == GUMBO_TAG_TEMPLATE || tag == GUMBO_TAG_OBJECT || tag == GUMBO_TAG_APPLET ||
         tag == GUMBO_TAG_MARQUEE;
}

// The end tags of other elements do not close it.
bool IsSpecial(GumboTag tag) {
  if (IsHeading(tag) || IsTablePart(tag) || IsScope(tag) || NeverNests(tag)) return true;
  switch (tag) {
    case GUMBO_TAG_ADDRESS:
    case GUMBO_TAG_ARTICLE:
    case GUMBO_TAG_ASIDE:
    case GUMBO_TAG_BLOCKQUOTE:
    case GUMBO_TAG_BUTTON:
    case GUMBO_TAG_CENTER:
    case GUMBO_TAG_DD:
    case GUMBO_TAG_DETAILS:
    case GUMBO_TAG_DIR:
    case GUMBO_TAG_DIV:
    case GUMBO_TAG_DL:
    case GUMBO_TAG_DT:
    case GUMBO_TAG_FIELDSET:
    case GUMBO_TAG_FIGCAPTION:
    case GUMBO_TAG_FIGURE:
    case GUMBO_TAG_FOOTER:
    case GUMBO_TAG_FORM:
    case GUMBO_TAG_FRAMESET:
    case GUMBO_TAG_HEADER:
    case GUMBO_TAG_HGROUP:
    case GUMBO_TAG_LI:
    case GUMBO_TAG_LISTING:
    case GUMBO_TAG_MAIN:
    case GUMBO_TAG_MENU:
    case GUMBO_TAG_NAV:
    case GUMBO_TAG_NOSCRIPT:
    case GUMBO_TAG_OL:
    case GUMBO_TAG_PRE:
    case GUMBO_TAG_SECTION:
    case GUMBO_TAG_SELECT:
    case GUMBO_TAG_SUMMARY:
    case GUMBO_TAG_UL:
      return true;
    default:
      return false;
  }
}

// Within foreign content these are HTML, and end it.
bool BreaksOut(GumboTag tag) {
  if (IsHeading(tag)) return true;
  switch (tag) {
    case GUMBO_TAG_B:
    case GUMBO_TAG_BIG:
    case GUMBO_TAG_BLOCKQUOTE:
    case GUMBO_TAG_BODY:
    case GUMBO_TAG_BR:
    case GUMBO_TAG_CENTER:
    case GUMBO_TAG_CODE:
    case GUMBO_TAG_DD:
    case GUMBO_TAG_DIV:
    case GUMBO_TAG_DL:
    case GUMBO_TAG_DT:
    case GUMBO_TAG_EM:
    case GUMBO_TAG_EMBED:
    case GUMBO_TAG_HEAD:
    case GUMBO_TAG_HR:
    case GUMBO_TAG_I:
    case GUMBO_TAG_IMG:
    case GUMBO_TAG_LI:
    case GUMBO_TAG_LISTING:
    case GUMBO_TAG_MENU:
    case GUMBO_TAG_META:
    case GUMBO_TAG_NOBR:
    case GUMBO_TAG_OL:
    case GUMBO_TAG_P:
    case GUMBO_TAG_PRE:
    case GUMBO_TAG_RUBY:
    case GUMBO_TAG_S:
    case GUMBO_TAG_SMALL:
    case GUMBO_TAG_SPAN:
    case GUMBO_TAG_STRIKE:
    case GUMBO_TAG_STRONG:
    case GUMBO_TAG_SUB:
    case GUMBO_TAG_SUP:
    case GUMBO_TAG_TABLE:
    case GUMBO_TAG_TT:
    case GUMBO_TAG_U:
    case GUMBO_TAG_UL:
    case GUMBO_TAG_VAR:
      return true;
    default:
      return false;
  }
}

// Within foreign content, what holds HTML again.
bool HoldsHtml(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_ANNOTATION_XML:
    case GUMBO_TAG_DESC:
    case GUMBO_TAG_FOREIGNOBJECT:
    case GUMBO_TAG_MI:
    case GUMBO_TAG_MN:
    case GUMBO_TAG_MO:
    case GUMBO_TAG_MS:
    case GUMBO_TAG_MTEXT:
    case GUMBO_TAG_TITLE:
      return true;
    default:
      return false;
  }
}

bool IsForeignRoot(GumboTag tag) { return tag == GUMBO_TAG_SVG || tag == GUMBO_TAG_MATH; }

std::string LowerCase(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return lower;
}

// ---- The page ----

// Goes through a page with the elements that are open, as a parser would have them: never fewer,
// or its depth would not be bounded.
class Bounder {
 public:
  Bounder(std::string_view page, const MarkupBounds& bounds, bool rewrites)
      : scanner_(page), bounds_(bounds), rewrites_(rewrites) {
    if (rewrites) html_.reserve(page.size());
  }

  // False: the page goes beyond the bounds; only when it is not rewritten.
  bool Run() {
    while (!exceeded_) {
      const HtmlScanner::Piece piece = scanner_.Next(InForeign());
      if (piece.text.empty()) return true;
      if (!piece.tag.has_value()) {
        if (skipped_.empty()) Write(piece.text);
        continue;
      }
      const Tag tag{
          *piece.tag, piece.text,
          gumbo_tagn_enum(piece.tag->name.data(), static_cast<unsigned>(piece.tag->name.size()))};
      if (!skipped_.empty() && Skip(tag)) continue;
      if (tag.is_end) {
        End(tag);
      } else {
        Start(tag);
      }
    }
    return false;
  }

  std::string Take() { return std::move(html_); }

 private:
  struct Tag : HtmlTag {
    std::string_view text;
    GumboTag id;
  };
  struct Element {
    GumboTag id;
    std::string_view name;
    bool is_foreign = false;
    bool holds_html = false;  // in foreign content
  };

  bool InForeign() const { return !open_.empty() && open_.back().is_foreign; }

  static bool Is(const Element& element, const Tag& tag) {
    return element.id == tag.id &&
           (tag.id != GUMBO_TAG_UNKNOWN || IsSameName(element.name, tag.name));
  }

  // How many elements lie before the innermost that `is_wanted` says yes to, looking no further
  // than the first that `ends` says yes to; the number of all when there is none.
  template <typename Wanted, typename Ends>
  size_t FindOpen(Wanted is_wanted, Ends ends) const {
    for (size_t i = open_.size(); i-- > 0;) {
      if (is_wanted(open_[i])) return i;
      if (ends(open_[i])) break;
    }
    return open_.size();
  }

  void CloseTo(size_t n_open) {
    if (n_open >= open_.size()) return;
    open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(n_open), open_.end());
    dropped_.clear();  // they lay in what is closed now
    n_dropped_ = 0;
  }

  void Write(std::string_view text) {
    if (rewrites_) html_ += text;
  }

  void WriteTag(const Tag& tag, bool without_attributes = false) {
    if (tag.n_attributes <= bounds_.max_attributes && !without_attributes) {
      Write(tag.text);
      return;
    }
    exceeded_ = !rewrites_;
    Write(tag.is_end ? "</" : "<");
    Write(tag.name);
    if (tag.is_hidden && !tag.is_end) Write(" hidden");
    Write(tag.is_self_closing ? "/>" : ">");
  }

  // In place of a tag.
  void WriteBreak(GumboTag id) {
    switch (RoleOf(id)) {
      case HtmlRole::kLine:
      case HtmlRole::kParagraph:
      case HtmlRole::kList:
      case HtmlRole::kHeading1:
      case HtmlRole::kPre:
        Write(InForeign() ? " " : "<br>");
        break;
      case HtmlRole::kCell:
      case HtmlRole::kInlineBlock:
      case HtmlRole::kReplaced:
        Write(" ");
        break;
      default:
        break;
    }
  }

  void Push(const Tag& tag, bool is_foreign = false, bool holds_html = false) {
    if (open_.size() < bounds_.max_depth && n_dropped_ == 0) {
      WriteTag(tag);
      open_.push_back({tag.id, tag.name, is_foreign, holds_html});
      return;
    }
    exceeded_ = !rewrites_;
    const HtmlRole role = RoleOf(tag.id);
    if (tag.is_hidden || role == HtmlRole::kSkipped) {
      StartSkipping(tag);
    } else if (role == HtmlRole::kReplaced) {
      WriteBreak(tag.id);
      StartSkipping(tag);
    } else {
      ++dropped_[LowerCase(tag.name)];
      ++n_dropped_;
      WriteBreak(tag.id);
    }
  }

  void StartSkipping(const Tag& tag) {
    skipped_name_ = LowerCase(tag.name);
    skipped_[skipped_name_] = 1;
  }

  // Within an element without text, whose tags are dropped. False: the tag ended it without being
  // part of it.
  bool Skip(const Tag& tag) {
    const std::string name = LowerCase(tag.name);
    if (!tag.is_end) {
      if (HasRawText(tag.id)) {
        scanner_.TakeRawText(tag.name);
      } else if (!IsVoid(tag.id) && !NeverNests(tag.id) && !tag.is_self_closing) {
        ++skipped_[name];
      }
      return true;
    }
    const auto open = skipped_.find(name);
    if (open != skipped_.end() && open->second > 0) {
      if (--open->second == 0 && name == skipped_name_) skipped_.clear();
      return true;
    }
    // Of an element around it: that one's end is its end, too.
    const auto dropped = dropped_.find(name);
    const bool is_around = (dropped != dropped_.end() && dropped->second > 0) ||
                           FindOpen([&](const Element& e) { return Is(e, tag); },
                                    [](const Element&) { return false; }) < open_.size();
    if (!IsSpecial(tag.id) || !is_around) return true;
    skipped_.clear();
    return false;
  }

  // ---- Start tags ----

  void Start(const Tag& tag) {
    if (InForeign()) {
      if (!BreaksOut(tag.id)) {
        StartForeign(tag);
        return;
      }
      LeaveForeign();
    }
    if (tag.id == GUMBO_TAG_HTML || tag.id == GUMBO_TAG_BODY) {
      // The attributes of all of them come together in one element.
      bool& is_first = tag.id == GUMBO_TAG_HTML ? is_first_html_ : is_first_body_;
      WriteTag(tag, /*without_attributes=*/!std::exchange(is_first, false) && tag.n_attributes > 0);
    } else if (HasRawText(tag.id)) {
      WriteTag(tag);
      Write(tag.id == GUMBO_TAG_PLAINTEXT ? scanner_.TakeRest() : scanner_.TakeRawText(tag.name));
    } else if (IsFormatting(tag.id)) {
      StartFormatting(tag);
    } else if (!Opens(tag)) {
      WriteTag(tag);
    } else {
      if (n_dropped_ == 0) CloseBefore(tag);
      Push(tag, /*is_foreign=*/IsForeignRoot(tag.id));
    }
  }

  // Whether what follows the tag is in its element.
  bool Opens(const Tag& tag) {
    if (IsVoid(tag.id) || NeverNests(tag.id)) return false;
    if (IsForeignRoot(tag.id)) return !tag.is_self_closing;
    if (tag.id == GUMBO_TAG_SELECT) return !CloseOpen(GUMBO_TAG_SELECT);  // its start is an end
    // No parser takes a form in a form, or a cell without a table.
    if (tag.id == GUMBO_TAG_FORM) return !std::exchange(in_form_, true);
    return !IsTablePart(tag.id) || InTable();
  }

  bool InTable() const {
    return std::any_of(open_.begin(), open_.end(),
                       [](const Element& e) {
                         return e.id == GUMBO_TAG_TABLE || e.id == GUMBO_TAG_TEMPLATE;
                       }) ||
           n_dropped_ > 0;
  }

  void StartForeign(const Tag& tag) {
    if (tag.is_self_closing) {
      WriteTag(tag);
    } else {
      const bool holds_html = HoldsHtml(tag.id);
      Push(tag, /*is_foreign=*/!holds_html, holds_html);
    }
  }

  void LeaveForeign() {
    size_t n_open = open_.size();
    while (n_open > 0 && open_[n_open - 1].is_foreign) --n_open;
    // Said, for the tag that ends it may be dropped.
    const Element& root = open_[n_open];
    if (IsForeignRoot(root.id)) Write(root.id == GUMBO_TAG_SVG ? "</svg>" : "</math>");
    CloseTo(n_open);
  }

  // Never closed, it goes on in all that follows. It says nothing about the text.
  void StartFormatting(const Tag& tag) {
    if (rewrites_) {
      if (tag.is_hidden) StartSkipping(tag);
      return;
    }
    exceeded_ = ++n_formatting_ > bounds_.max_open_formatting;
    Push(tag);
  }

  // Closes the innermost one that is open in this scope.
  bool CloseOpen(GumboTag id) {
    const size_t at = FindOpen([id](const Element& e) { return e.id == id; }, &Bounder::EndsScope);
    const bool is_open = at < open_.size();
    CloseTo(at);
    return is_open;
  }

  // What a start tag closes.
  void CloseBefore(const Tag& tag) {
    const auto close_behind = [this](auto is_context) {
      const size_t at =
          FindOpen(is_context, [](const Element& e) { return e.id == GUMBO_TAG_TABLE; });
      if (at < open_.size()) CloseTo(at + 1);
    };
    const auto is_table = [](const Element& e) {
      return e.id == GUMBO_TAG_TABLE || e.id == GUMBO_TAG_TEMPLATE;
    };
    if (tag.id == GUMBO_TAG_LI || tag.id == GUMBO_TAG_DD || tag.id == GUMBO_TAG_DT) {
      const bool is_li = tag.id == GUMBO_TAG_LI;
      CloseTo(FindOpen(
          [is_li](const Element& e) {
            return is_li ? e.id == GUMBO_TAG_LI : e.id == GUMBO_TAG_DD || e.id == GUMBO_TAG_DT;
          },
          [](const Element& e) {
            return e.is_foreign || e.holds_html ||
                   (IsSpecial(e.id) && e.id != GUMBO_TAG_ADDRESS && e.id != GUMBO_TAG_DIV);
          }));
    } else if (IsCell(tag.id)) {
      close_behind([&](const Element& e) { return e.id == GUMBO_TAG_TR || is_table(e); });
    } else if (tag.id == GUMBO_TAG_TR) {
      close_behind([&](const Element& e) { return IsTableBody(e.id) || is_table(e); });
    } else if (IsTablePart(tag.id)) {
      close_behind(is_table);
    } else if (tag.id == GUMBO_TAG_TABLE) {
      // In a table, but not in a cell of it: the first one ends.
      CloseTo(FindOpen([](const Element& e) { return e.id == GUMBO_TAG_TABLE; },
                       [](const Element& e) {
                         return IsCell(e.id) || e.id == GUMBO_TAG_CAPTION ||
                                e.id == GUMBO_TAG_TEMPLATE || e.holds_html;
                       }));
    } else if (tag.id == GUMBO_TAG_BUTTON) {
      CloseOpen(GUMBO_TAG_BUTTON);
    } else if (!open_.empty() && ((IsHeading(tag.id) && IsHeading(open_.back().id)) ||
                                  (tag.id == GUMBO_TAG_OPTION && open_.back().id == tag.id))) {
      CloseTo(open_.size() - 1);
    }
  }

  // ---- End tags ----

  static bool EndsScope(const Element& e) { return IsScope(e.id) || e.holds_html; }

  void End(const Tag& tag) {
    if (n_dropped_ > 0) {
      const auto dropped = dropped_.find(LowerCase(tag.name));
      if (dropped != dropped_.end() && dropped->second > 0) {
        --dropped->second;
        --n_dropped_;
        WriteBreak(tag.id);
        return;
      }
    }
    if (rewrites_ && IsFormatting(tag.id) && !InForeign()) return;
    WriteTag(tag);
    const auto is_same = [&](const Element& e) { return Is(e, tag); };
    if (InForeign()) {
      const size_t at = FindOpen(is_same, [](const Element& e) { return !e.is_foreign; });
      if (at < open_.size() && open_[at].is_foreign) {
        CloseTo(at);
        return;
      }
    }
    if (IsVoid(tag.id) || NeverNests(tag.id)) return;
    if (IsFormatting(tag.id)) {
      EndFormatting(tag);
    } else if (tag.id == GUMBO_TAG_FORM) {
      // What is in it and not closed stays open.
      in_form_ = false;
      Remove(FindOpen(is_same, &Bounder::EndsScope));
    } else if (IsHeading(tag.id)) {
      CloseTo(FindOpen([](const Element& e) { return IsHeading(e.id); }, &Bounder::EndsScope));
    } else if (tag.id == GUMBO_TAG_TABLE || tag.id == GUMBO_TAG_TEMPLATE || IsTablePart(tag.id)) {
      CloseTo(FindOpen(is_same, [](const Element& e) {
        return e.id == GUMBO_TAG_TABLE || e.id == GUMBO_TAG_TEMPLATE;
      }));
    } else if (IsSpecial(tag.id)) {
      CloseTo(FindOpen(is_same, &Bounder::EndsScope));
    } else {
      CloseTo(FindOpen(is_same, [](const Element& e) { return IsSpecial(e.id) || e.holds_html; }));
    }
  }

  // Blocks in it stay open; it counts as closed only where a parser does not open it again.
  void EndFormatting(const Tag& tag) {
    const bool is_innermost = !open_.empty() && Is(open_.back(), tag);
    if (is_innermost && n_formatting_ > 0) --n_formatting_;
    Remove(FindOpen([&](const Element& e) { return Is(e, tag); }, &Bounder::EndsScope));
  }

  void Remove(size_t at) {
    if (at < open_.size()) open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  HtmlScanner scanner_;
  const MarkupBounds bounds_;
  const bool rewrites_;
  bool exceeded_ = false;
  std::vector<Element> open_;  // max_depth at most
  size_t n_formatting_ = 0;    // formatting elements that may never have been closed
  bool is_first_html_ = true;
  bool is_first_body_ = true;
  bool in_form_ = false;
  // By name, elements in the innermost open one whose tags were dropped.
  std::unordered_map<std::string, size_t> dropped_;
  size_t n_dropped_ = 0;
  // By name, elements that are open in one that is left out, and that one; empty outside of one.
  std::unordered_map<std::string, size_t> skipped_;
  std::string skipped_name_;
  std::string html_;
};

}  // namespace

std::optional<std::string> BoundMarkup(std::string_view html, const MarkupBounds& bounds) {
  if (Bounder(html, bounds, /*rewrites=*/false).Run()) return std::nullopt;
  Bounder bounder(html, bounds, /*rewrites=*/true);
  bounder.Run();
  return bounder.Take();
}

}  // namespace fovea::documents
