#include "documents/html_scanner.h"

#include <algorithm>

namespace fovea::documents {
namespace {

constexpr std::string_view kSpaces = " \t\n\f\r";

bool IsSpace(char c) { return kSpaces.find(c) != kSpaces.npos; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
std::string_view Trimmed(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  return text.substr(0, text.find_last_not_of(kSpaces) + 1);
}
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// Reads one tag from its start. A quote begins a value only behind "=".
class TagReader {
 public:
  explicit TagReader(std::string_view page) : page_(page) {}

  // False: the page ends within it.
  bool Read(HtmlTag* tag) {
    at_ = 1;
    tag->is_end = page_[at_] == '/';
    at_ += tag->is_end ? 1 : 0;
    tag->name = Until(" \t\n\f\r/>");
    while (true) {
      SkipSpaces();
      if (at_ == page_.size()) return false;
      if (page_[at_] == '>') break;
      if (page_[at_] == '/') {
        ++at_;
        tag->is_self_closing = at_ < page_.size() && page_[at_] == '>';
        continue;
      }
      std::string_view value;
      const std::string_view name = Attribute(&value);
      ++tag->n_attributes;
      tag->is_hidden = tag->is_hidden || IsSameName(name, "hidden") ||
                       (IsSameName(name, "style") && IsHiddenByStyle(value));
    }
    ++at_;
    return true;
  }
  size_t size() const { return at_; }

 private:
  std::string_view Until(std::string_view ends) {
    const size_t begin = at_;
    at_ = std::min(page_.find_first_of(ends, at_), page_.size());
    return page_.substr(begin, at_ - begin);
  }
  void SkipSpaces() { at_ = std::min(page_.find_first_not_of(kSpaces, at_), page_.size()); }

  // Its name; behind its value, which may be missing.
  std::string_view Attribute(std::string_view* value) {
    const size_t begin = at_++;  // a name may begin with "="
    Until(" \t\n\f\r/>=");
    const std::string_view name = page_.substr(begin, at_ - begin);
    SkipSpaces();
    if (at_ == page_.size() || page_[at_] != '=') return name;
    ++at_;
    SkipSpaces();
    if (at_ == page_.size()) return name;
    const char quote = page_[at_];
    if (quote == '"' || quote == '\'') {
      ++at_;
      *value = Until(std::string_view(&quote, 1));
      at_ = std::min(at_ + 1, page_.size());
    } else if (quote != '>') {
      *value = Until(" \t\n\f\r>");
    }
    return name;
  }

  const std::string_view page_;
  size_t at_ = 0;
};

}  // namespace

bool IsSameName(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return Lower(x) == Lower(y); });
}

bool IsHiddenByStyle(std::string_view style) {
  bool is_hidden = false;
  bool is_important = false;
  while (!style.empty()) {
    const size_t end = std::min(style.find(';'), style.size());
    const std::string_view declaration = style.substr(0, end);
    style.remove_prefix(std::min(end + 1, style.size()));
    const size_t colon = std::min(declaration.find(':'), declaration.size());
    if (colon == declaration.size()) continue;
    if (!IsSameName(Trimmed(declaration.substr(0, colon)), "display")) continue;
    const std::string_view value = declaration.substr(colon + 1);
    const size_t mark = value.find('!');
    if (is_important && mark == value.npos) continue;
    is_important = mark != value.npos;
    is_hidden = IsSameName(Trimmed(value.substr(0, mark)), "none");
  }
  return is_hidden;
}

std::string_view HtmlScanner::Take(size_t size) {
  const std::string_view taken = rest_.substr(0, size);
  rest_.remove_prefix(taken.size());
  return taken;
}

std::string_view HtmlScanner::TakeThrough(std::string_view end, size_t from) {
  const size_t at = rest_.find(end, from);
  return Take(at == rest_.npos ? rest_.size() : at + end.size());
}

std::string_view HtmlScanner::TakeComment() {
  constexpr std::string_view kStart = "<!--";
  for (const std::string_view whole : {"<!-->", "<!--->"}) {
    if (rest_.starts_with(whole)) return Take(whole.size());
  }
  // It ends with "-->" or "--!>".
  for (size_t at = rest_.find("--", kStart.size()); at != rest_.npos;
       at = rest_.find("--", at + 1)) {
    const std::string_view end = rest_.substr(at + 2);
    if (end.starts_with('>')) return Take(at + 3);
    if (end.starts_with("!>")) return Take(at + 4);
  }
  return TakeRest();
}

HtmlScanner::Piece HtmlScanner::Next(bool is_foreign) {
  if (!rest_.starts_with('<')) return {Take(std::min(rest_.find('<'), rest_.size())), {}};
  const char first = rest_.size() > 1 ? rest_[1] : '\0';
  const char second = rest_.size() > 2 ? rest_[2] : '\0';
  if (IsLetter(first) || (first == '/' && IsLetter(second))) {
    HtmlTag tag;
    TagReader reader(rest_);
    if (!reader.Read(&tag)) return {TakeRest(), {}};
    return {Take(reader.size()), tag};
  }
  if (rest_.starts_with("<!--")) return {TakeComment(), {}};
  if (is_foreign && rest_.starts_with("<![CDATA[")) return {TakeThrough("]]>", 0), {}};
  // A document type, or what is taken as a comment.
  if (first == '!' || first == '?' || first == '/') return {TakeThrough(">", 0), {}};
  return {Take(std::min(rest_.find('<', 1), rest_.size())), {}};
}

std::string_view HtmlScanner::TakeRawText(std::string_view name) {
  size_t at = rest_.find("</");
  for (; at != rest_.npos; at = rest_.find("</", at + 1)) {
    const std::string_view end = rest_.substr(at + 2);
    if (end.size() > name.size() && IsSameName(end.substr(0, name.size()), name) &&
        (IsSpace(end[name.size()]) || end[name.size()] == '/' || end[name.size()] == '>')) {
      break;
    }
  }
  return Take(std::min(at, rest_.size()));
}

}  // namespace fovea::documents
