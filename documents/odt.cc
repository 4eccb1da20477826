#include "documents/odt.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "documents/block_text.h"
#include "documents/hiding_styles.h"
#include "documents/utf8.h"
#include "documents/xml.h"

namespace fovea::documents {
namespace {

// The middle of urn:oasis:names:tc:opendocument:xmlns:text:1.0 (and of its followers).
std::string_view Vocabulary(const XmlName& name) {
  constexpr std::string_view kPrefix = "urn:oasis:names:tc:opendocument:xmlns:";
  if (!name.space.starts_with(kPrefix)) return {};
  const std::string_view rest = name.space.substr(kPrefix.size());
  return rest.substr(0, rest.find(':'));
}

bool IsSkipped(std::string_view vocabulary, std::string_view local) {
  if (vocabulary == "svg-compatible") return true;  // what describes a picture
  if (vocabulary == "office") {
    return local == "annotation" || local == "forms" || local == "binary-data";
  }
  if (vocabulary != "text") return false;
  return local == "tracked-changes" || local == "ruby-text";
}

// Styles as they are declared: those of "paragraph" and "text" hide what has them.
class StyleReader {
 public:
  explicit StyleReader(HidingStyles* styles) : styles_(*styles) {}
  // Elements of the vocabulary "style".
  void Start(std::string_view local, const XmlAttributes& attributes) {
    if (local == "style") {
      family_ = std::string(attributes.Find("family"));
      name_ = std::string(attributes.Find("name"));
      style_ = {.parent = std::string(attributes.Find("parent-style-name"))};
    } else if (local == "text-properties") {
      const std::string_view display = attributes.Find("display");
      // "condition" is one of the document's own, which is not evaluated.
      if (!display.empty()) style_.hides = display == "none";
    }
  }
  void End(std::string_view local) {
    if (local == "style") styles_.Add(family_, name_, std::exchange(style_, {}));
  }

 private:
  HidingStyles& styles_;
  std::string family_;
  std::string name_;
  HidingStyles::Style style_;
};

// The part with the styles that have names for people. Its other ones are of page headers, and
// share their names with those of the text.
class StylesVisitor : public XmlVisitor {
 public:
  explicit StylesVisitor(HidingStyles* styles) : reader_(styles) {}
  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    const std::string_view vocabulary = Vocabulary(name);
    if (skipped_depth_ > 0 || (vocabulary == "office" && (name.local == "automatic-styles" ||
                                                          name.local == "master-styles"))) {
      ++skipped_depth_;
    } else if (vocabulary == "style") {
      reader_.Start(name.local, attributes);
    }
  }
  void End(const XmlName& name) override {
    if (skipped_depth_ > 0) {
      --skipped_depth_;
    } else if (Vocabulary(name) == "style") {
      reader_.End(name.local);
    }
  }
  void Text(std::string_view) override {}

 private:
  StyleReader reader_;
  int64_t skipped_depth_ = 0;
};

class OdtVisitor : public XmlVisitor {
 public:
  // `styles`: those of the other part; the text's own are added.
  OdtVisitor(BlockText* text, HidingStyles* styles, const bool* is_done)
      : text_(*text), styles_(*styles), reader_(styles), is_done_(*is_done) {}

  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    const std::string_view vocabulary = Vocabulary(name);
    if (skipped_depth_ > 0 || IsSkipped(vocabulary, name.local) ||
        IsHiddenHere(vocabulary, name.local, attributes)) {
      ++skipped_depth_;
      return;
    }
    if (vocabulary == "style") reader_.Start(name.local, attributes);
    if (vocabulary == "table" && name.local == "table") text_.OpenTable();
    if (vocabulary != "text") return;
    if (name.local == "p" || name.local == "h") {
      text_.OpenParagraph();
      hides_.push_back(
          {.is_paragraph = true,
           .hides = styles_.Hides("paragraph", attributes.Find("style-name")).value_or(false)});
    } else if (name.local == "span") {
      hides_.push_back(
          {.hides = styles_.Hides("text", attributes.Find("style-name")).value_or(IsHidden()),
           .hides_to_its_end = !hides_.empty() && hides_.back().hides_to_its_end});
    } else if (name.local == "hidden-paragraph") {
      // A field that hides the paragraph which it stands in, wherever that is.
      if (attributes.Find("is-hidden") == "true") HideParagraph();
    } else if (name.local == "list") {
      ++list_depth_;
    } else if (IsHidden()) {
      return;
    } else if (name.local == "s") {
      AppendSpaces(attributes.Find("c"));
    } else if (name.local == "tab") {
      text_.Append("\t");
    } else if (name.local == "line-break") {
      text_.Append("\n");
    } else if (name.local == "note-citation") {
      in_citation_ = true;
      label_.clear();
    } else if (name.local == "note-body") {
      const std::string label = OneLine(std::exchange(label_, ""), kMaxLabelBytes);
      text_.Append(label.empty() ? "" : StrCat("[", label, "]"));
      text_.OpenNote(label);
    }
  }

  void End(const XmlName& name) override {
    if (skipped_depth_ > 0) {
      --skipped_depth_;
      return;
    }
    const std::string_view vocabulary = Vocabulary(name);
    if (vocabulary == "style") reader_.End(name.local);
    if (vocabulary == "table") {
      if (name.local == "table-cell" || name.local == "covered-table-cell") {
        text_.CloseCell();
      } else if (name.local == "table-row") {
        text_.CloseRow();
      } else if (name.local == "table") {
        text_.CloseTable();
      }
    }
    if (vocabulary != "text") return;
    if (name.local == "p" || name.local == "h") {
      hides_.pop_back();
      text_.CloseParagraph(/*is_list_item=*/list_depth_ > 0);
    } else if (name.local == "span") {
      hides_.pop_back();
    } else if (name.local == "list") {
      --list_depth_;
    } else if (name.local == "note-citation") {
      in_citation_ = false;
    } else if (name.local == "note-body") {
      text_.CloseNote();
    }
  }

  void Text(std::string_view text) override {
    if (skipped_depth_ > 0 || IsHidden()) return;
    if (in_citation_) {
      if (label_.size() < kMaxLabelBytes) label_ += text;
    } else {
      text_.AppendCollapsed(text);
    }
  }
  bool is_done() const override { return is_done_; }

 private:
  // A run of spaces, which XML would collapse; the count is the file's, so it is bounded.
  void AppendSpaces(std::string_view count) {
    constexpr unsigned kMaxSpaces = 256;
    unsigned n = 1;
    std::from_chars(count.data(), count.data() + count.size(), n);
    text_.Append(std::string(std::clamp(n, 1u, kMaxSpaces), ' '));
  }

  // By the styles of the paragraph and the spans that are open.
  bool IsHidden() const {
    return !hides_.empty() && (hides_.back().hides || hides_.back().hides_to_its_end);
  }
  void HideParagraph() {
    text_.ClearParagraph();
    for (auto open = hides_.rbegin(); open != hides_.rend(); ++open) {
      open->hides_to_its_end = true;
      if (open->is_paragraph) break;
    }
  }

  // A section that is hidden; what is anchored in hidden text.
  bool IsHiddenHere(std::string_view vocabulary, std::string_view local,
                    const XmlAttributes& attributes) const {
    if (vocabulary == "text" && local == "hidden-text") {
      return attributes.Find("is-hidden") != "false";
    }
    if (vocabulary == "text" && local == "section") {
      return attributes.Find("display") == "none" || attributes.Find("is-hidden") == "true";
    }
    return IsHidden() && (vocabulary == "drawing" || (vocabulary == "text" && local == "note"));
  }

  struct Open {
    bool is_paragraph = false;
    bool hides = false;             // by its style
    bool hides_to_its_end = false;  // with the paragraph
  };

  static constexpr size_t kMaxLabelBytes = 64;

  BlockText& text_;
  HidingStyles& styles_;
  StyleReader reader_;
  std::vector<Open> hides_;  // paragraphs and spans that are open
  const bool& is_done_;
  int64_t skipped_depth_ = 0;
  int64_t list_depth_ = 0;
  bool in_citation_ = false;
  std::string label_;  // of the note
};

}  // namespace

absl::Status ReadOdt(const ZipArchive& archive, const ReadLimits& limits, TextReceiver& receiver) {
  constexpr uint64_t kMaxManifestBytes = uint64_t{16} << 20;
  const ZipMember* content = archive.Find("content.xml");
  if (content == nullptr) return absl::DataLossError("broken ODT: no part content.xml");
  if (const ZipMember* manifest = archive.Find("META-INF/manifest.xml"); manifest != nullptr) {
    const auto text = archive.Read(*manifest, kMaxManifestBytes);
    if (text.ok() && text->find("encryption-data") != std::string::npos) {
      return absl::InvalidArgumentError("encrypted ODT: save it without its password first");
    }
  }
  const std::string title = DublinCoreTitle(archive, "meta.xml");
  if (!title.empty()) receiver.Title(title);
  // Without them nothing is hidden by its style.
  HidingStyles styles;
  if (const ZipMember* part = archive.Find("styles.xml"); part != nullptr) {
    StylesVisitor visitor(&styles);
    if (!ReadXml(archive, *part, limits.max_zip_part_bytes, &visitor).ok()) styles = {};
  }
  bool is_done = false;
  BlockText blocks([&](std::string_view piece) { is_done = is_done || !receiver.Text(piece); });
  OdtVisitor visitor(&blocks, &styles, &is_done);
  return ReadXml(archive, *content, limits.max_zip_part_bytes, &visitor);
}

}  // namespace fovea::documents
