#include "documents/html.h"

#include <gumbo.h>
#include <time.h>

#include <algorithm>
#include <csetjmp>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include "documents/charset.h"
#include "documents/errors.h"
#include "documents/html_bounds.h"
#include "documents/html_roles.h"
#include "documents/html_scanner.h"
#include "documents/string_document.h"
#include "documents/titles.h"
#include "documents/utf8.h"
#include "documents/xhtml.h"

namespace fovea::documents {
namespace {

// ---- The parser's memory ----
//
// gumbo frees a tree by recursion (a deeply nested page overflows the stack) and has no limits. So
// it allocates from a heap that knows its blocks: freed in one loop, and left by longjmp once a
// limit is reached. Only gumbo's C frames lie between Allocate and Parse, none with a destructor.

struct alignas(std::max_align_t) Block {
  Block* previous;
  Block* next;
  size_t size_bytes;
};

double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class Heap {
 public:
  Heap(size_t max_bytes, double max_seconds)
      : max_bytes_(max_bytes), deadline_(ThreadSeconds() + max_seconds) {
    blocks_.previous = blocks_.next = &blocks_;
  }
  ~Heap() {
    for (Block* block = blocks_.next; block != &blocks_;) {
      Block* next = block->next;
      std::free(block);
      block = next;
    }
  }
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  // The page's tree, which lives as long as the heap; nullptr once a limit is reached.
  GumboOutput* Parse(const char* html, size_t size_bytes) {
    GumboOptions options = kGumboDefaultOptions;
    options.allocator = &Heap::Allocate;
    options.deallocator = &Heap::Free;
    options.userdata = this;
    options.max_errors = 0;
    if (setjmp(escape_) != 0) return nullptr;
    return gumbo_parse_with_options(&options, html, size_bytes);
  }

 private:
  static void* Allocate(void* userdata, size_t size_bytes) {
    Heap* heap = static_cast<Heap*>(userdata);
    constexpr uint64_t kAllocationsPerClock = 1024;
    const bool late =
        ++heap->n_allocations_ % kAllocationsPerClock == 0 && ThreadSeconds() > heap->deadline_;
    if (late || size_bytes > heap->max_bytes_ - heap->used_bytes_) std::longjmp(heap->escape_, 1);
    Block* block = static_cast<Block*>(std::malloc(sizeof(Block) + size_bytes));
    if (block == nullptr) std::longjmp(heap->escape_, 1);
    block->size_bytes = size_bytes;
    block->previous = &heap->blocks_;
    block->next = heap->blocks_.next;
    block->next->previous = block;
    heap->blocks_.next = block;
    heap->used_bytes_ += size_bytes;
    return block + 1;
  }

  static void Free(void* userdata, void* memory) {
    if (memory == nullptr) return;
    Block* block = static_cast<Block*>(memory) - 1;
    block->previous->next = block->next;
    block->next->previous = block->previous;
    static_cast<Heap*>(userdata)->used_bytes_ -= block->size_bytes;
    std::free(block);
  }

  Block blocks_{};
  const size_t max_bytes_;
  const double deadline_;
  size_t used_bytes_ = 0;
  uint64_t n_allocations_ = 0;
  std::jmp_buf escape_;
};

// ---- The text's layout ----

// Text with its white space collapsed; breaks are held back until text follows them.
class ReadableText {
 public:
  void Append(std::string_view text) {
    while (!text.empty()) {
      if (IsHtmlSpace(text.front())) {
        space_ = true;
        text.remove_prefix(1);
      } else if (text.starts_with("\xC2\xA0")) {  // no-break space
        space_ = true;
        text.remove_prefix(2);
      } else if (text.starts_with("\xC2\xAD")) {  // soft hyphen
        text.remove_prefix(2);
      } else if (text.starts_with("\xE2\x80\x8B") || text.starts_with(kByteOrderMark)) {
        text.remove_prefix(3);  // spaces without a width
      } else {
        Flush();
        size_t end = 1;
        while (end < text.size() && !IsHtmlSpace(text[end]) && !IsSpecialLead(text[end])) ++end;
        text_ += text.substr(0, end);
        text.remove_prefix(end);
      }
    }
  }

  void AppendPreformatted(std::string_view text) {
    if (text.empty()) return;
    Flush();
    text_ += text;
  }

  void EndPreformatted() {
    while (!text_.empty() && IsHtmlSpace(text_.back())) text_.pop_back();
  }

  // At least `n_newlines` before the next text.
  void Break(int n_newlines) {
    newlines_ = std::max(newlines_, n_newlines);
    tabs_ = 0;
    space_ = false;
  }
  // At least a space before the next text.
  void Space() { space_ = true; }
  // <br>: two of them leave an empty line, more leave no more.
  void BreakLine() { Break(std::min(newlines_ + 1, 2)); }
  void EndCell() {
    ++tabs_;
    space_ = false;
  }

  size_t size() const { return text_.size(); }
  std::string_view text() const { return text_; }
  std::string Take() {
    EndPreformatted();
    return std::move(text_);
  }

 private:
  static bool IsHtmlSpace(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r';
  }
  static bool IsSpecialLead(char c) { return c == '\xC2' || c == '\xE2' || c == '\xEF'; }

  void Flush() {
    if (!text_.empty()) {
      text_.append(static_cast<size_t>(newlines_), '\n');
      text_.append(static_cast<size_t>(tabs_), '\t');
      if (space_ && newlines_ == 0 && tabs_ == 0) text_.push_back(' ');
    }
    newlines_ = tabs_ = 0;
    space_ = false;
  }

  std::string text_;
  int newlines_ = 0;
  int tabs_ = 0;
  bool space_ = false;
};

// ---- The page's tree ----

HtmlRole RoleOf(const GumboElement& element) {
  // Drawings hold labels, not text; their <title> is not the page's.
  return element.tag_namespace == GUMBO_NAMESPACE_SVG ? HtmlRole::kReplaced
                                                      : documents::RoleOf(element.tag);
}

std::string_view Attribute(const GumboElement& element, const char* name) {
  const GumboAttribute* attribute = gumbo_get_attribute(&element.attributes, name);
  return attribute == nullptr ? std::string_view() : attribute->value;
}

// Formulas are hidden beside a picture of them, which says nothing here.
bool HoldsFormula(const GumboElement& element) {
  for (unsigned i = 0; i < element.children.length; ++i) {
    const auto* child = static_cast<const GumboNode*>(element.children.data[i]);
    if (child->type == GUMBO_NODE_ELEMENT) return child->v.element.tag == GUMBO_TAG_MATH;
  }
  return false;
}

bool IsHidden(const GumboElement& element) {
  if (gumbo_get_attribute(&element.attributes, "hidden") != nullptr) return true;
  // A page that hides itself whole is shown by its script.
  if (element.tag == GUMBO_TAG_HTML || element.tag == GUMBO_TAG_BODY) return false;
  return IsHiddenByStyle(Attribute(element, "style")) && !HoldsFormula(element);
}

// Walks the tree in the document's order, with a stack of its own: depth costs heap, not stack.
class Extractor {
 public:
  HtmlText Extract(const GumboNode* root) {
    std::vector<Frame> open;
    if (Enter(root)) open.push_back({root, 0});
    while (!open.empty()) {
      Frame& frame = open.back();
      const GumboVector& children = frame.node->v.element.children;
      if (frame.next_child == children.length) {
        Leave(frame.node);
        open.pop_back();
        continue;
      }
      const auto* child = static_cast<const GumboNode*>(children.data[frame.next_child++]);
      if (Enter(child)) open.push_back({child, 0});
    }
    if (title_.empty()) title_ = heading_;
    return {std::move(title_), text_.Take()};
  }

 private:
  struct Frame {
    const GumboNode* node;
    unsigned next_child;
  };

  // True if the node's children come next; Leave follows them.
  bool Enter(const GumboNode* node) {
    switch (node->type) {
      case GUMBO_NODE_TEXT:
      case GUMBO_NODE_WHITESPACE:
      case GUMBO_NODE_CDATA:
        if (pre_depth_ > 0) {
          text_.AppendPreformatted(node->v.text.text);
        } else {
          text_.Append(node->v.text.text);
        }
        return false;
      case GUMBO_NODE_ELEMENT:
        break;
      default:
        return false;  // comments, templates
    }
    const GumboElement& element = node->v.element;
    if (IsHidden(element)) return false;
    switch (RoleOf(element)) {
      case HtmlRole::kSkipped:
        return false;
      case HtmlRole::kReplaced:
        if (!IsSameName(Attribute(element, "type"), "hidden")) text_.Space();
        return false;
      case HtmlRole::kInlineBlock:
        text_.Space();
        return true;
      case HtmlRole::kTitle:
        TakeTitle(element);
        return false;
      case HtmlRole::kBr:
        text_.BreakLine();
        return false;
      case HtmlRole::kRule:
        text_.Break(2);
        return false;
      case HtmlRole::kList:
        text_.Break(list_depth_++ > 0 ? 1 : 2);
        return true;
      case HtmlRole::kPre:
        text_.Break(2);
        ++pre_depth_;
        return true;
      case HtmlRole::kHeading1:
        text_.Break(2);
        heading_begin_ = text_.size();
        return true;
      case HtmlRole::kParagraph:
        text_.Break(2);
        return true;
      case HtmlRole::kLine:
        text_.Break(1);
        return true;
      case HtmlRole::kCell:
      case HtmlRole::kInline:
        return true;
    }
    return true;
  }

  void Leave(const GumboNode* node) {
    switch (RoleOf(node->v.element)) {
      case HtmlRole::kList:
        text_.Break(--list_depth_ > 0 ? 1 : 2);
        break;
      case HtmlRole::kPre:
        --pre_depth_;
        text_.EndPreformatted();
        text_.Break(2);
        break;
      case HtmlRole::kHeading1:
        if (heading_.empty() && heading_begin_ < text_.size()) {
          heading_ = OneLine(text_.text().substr(heading_begin_), kMaxTitleBytes);
        }
        text_.Break(2);
        break;
      case HtmlRole::kParagraph:
        text_.Break(2);
        break;
      case HtmlRole::kLine:
        text_.Break(1);
        break;
      case HtmlRole::kCell:
        text_.EndCell();
        break;
      case HtmlRole::kInlineBlock:
        text_.Space();
        break;
      default:
        break;
    }
  }

  void TakeTitle(const GumboElement& element) {
    if (!title_.empty()) return;
    for (unsigned i = 0; i < element.children.length; ++i) {
      const auto* child = static_cast<const GumboNode*>(element.children.data[i]);
      if (child->type == GUMBO_NODE_TEXT) title_ += OneLine(child->v.text.text, kMaxTitleBytes);
    }
  }

  ReadableText text_;
  std::string title_;
  std::string heading_;
  size_t heading_begin_ = 0;
  int list_depth_ = 0;
  int pre_depth_ = 0;
};

}  // namespace

absl::StatusOr<HtmlText> ExtractHtml(std::string_view html, const ReadLimits& limits) {
  if (html.starts_with(kByteOrderMark)) html.remove_prefix(kByteOrderMark.size());
  const std::optional<std::string> bounded = BoundMarkup(html);
  if (bounded.has_value()) html = *bounded;
  Heap heap(limits.max_html_tree_bytes, limits.max_html_parse_seconds);
  const GumboOutput* output = heap.Parse(html.data(), html.size());
  if (output == nullptr) {
    return absl::ResourceExhaustedError(
        StrCat("the page's ", html.size(), " bytes of markup need more than ",
               limits.max_html_tree_bytes, " bytes of memory or ", limits.max_html_parse_seconds,
               " s to be parsed: it has too many elements; save it as text"));
  }
  return Extractor().Extract(output->root);
}

absl::StatusOr<std::unique_ptr<TextDocument>> OpenHtml(InputFile& file, const ReadLimits& limits) {
  std::string html;
  ASSIGN_OR_RETURN(html, file.ReadAll(limits.max_html_bytes, "a page of HTML"));
  ASSIGN_OR_RETURN(html, HtmlToUtf8(std::move(html), file.name()));
  const size_t valid_bytes = ScanUtf8(html).valid_bytes;
  if (valid_bytes < html.size()) return NotTextError(file.name(), html, valid_bytes, 0);
  if (IsBlank(html)) return EmptyError(file.name(), "");
  if (IsXhtml(html)) html = XhtmlToHtml(html);
  absl::StatusOr<HtmlText> page = ExtractHtml(html, limits);
  if (!page.ok()) return Annotate(page.status(), file.name());
  if (IsBlank(page->text)) return EmptyError(file.name(), "", kEmptyHtmlKind);
  auto document = std::make_unique<StringDocument>(std::move(page->text));
  document->title = std::move(page->title);
  document->source = file.name();
  document->set_size_bytes(file.size_bytes());
  return document;
}

}  // namespace fovea::documents
