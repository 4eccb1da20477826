#include "documents/docx.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "documents/block_text.h"
#include "documents/hiding_styles.h"
#include "documents/titles.h"
#include "documents/utf8.h"
#include "documents/xml.h"

namespace fovea::documents {
namespace {

constexpr uint64_t kMaxRelationsBytes = uint64_t{1} << 20;

// Transitional and strict documents differ in their namespaces.
bool IsWord(const XmlName& name) {
  return name.space == "http://schemas.openxmlformats.org/wordprocessingml/2006/main" ||
         name.space == "http://purl.oclc.org/ooxml/wordprocessingml/main";
}

// Subtrees without text that a reader sees; Fallback repeats what stands beside it.
bool IsSkipped(const XmlName& name) {
  if (!IsWord(name)) return name.local == "Fallback";
  constexpr std::string_view kSkipped[] = {"del",   "moveFrom",  "tabs",      "rt",
                                           "sdtPr", "pPrChange", "rPrChange", "sectPr"};
  return std::find(std::begin(kSkipped), std::end(kSkipped), name.local) != std::end(kSkipped);
}

struct Note {
  std::string text;
  std::string label = {};  // where it was referred to; empty before
};
using Notes = std::map<std::string, Note>;  // by "footnote" or "endnote" and their id

// A property that is on or off: there without a value means on.
bool IsOn(std::string_view value) { return value != "0" && value != "false" && value != "off"; }

struct WordStyles {
  HidingStyles styles;  // families: "paragraph" and "character"
  std::map<std::string, std::string, std::less<>> defaults;  // by family: of what names no style
  bool hides_all = false;                                    // by the defaults of the document

  // Of a run without hiding properties of its own. ECMA-376 (17.7.3) calls hiding a toggle
  // property: the two styles of a run undo each other, but not the document's defaults.
  bool Hides(std::string_view paragraph_style, std::string_view run_style) const {
    if (hides_all) return true;
    return StyleHides("paragraph", paragraph_style) != StyleHides("character", run_style);
  }

 private:
  bool StyleHides(std::string_view family, std::string_view name) const {
    if (name.empty()) {
      const auto style = defaults.find(family);
      if (style == defaults.end()) return false;
      name = style->second;
    }
    return styles.Hides(family, name).value_or(false);
  }
};

class StylesVisitor : public XmlVisitor {
 public:
  explicit StylesVisitor(WordStyles* styles) : styles_(*styles) {}

  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    if (!IsWord(name)) return;
    if (name.local == "style") {
      family_ = std::string(attributes.Find("type"));
      name_ = std::string(attributes.Find("styleId"));
      style_ = {};
      const std::string_view is_default = attributes.Find("default");
      if (!is_default.empty() && IsOn(is_default)) styles_.defaults.emplace(family_, name_);
    } else if (IsInner(name)) {
      ++inner_depth_;
    } else if (name.local == "basedOn") {
      style_.parent = std::string(attributes.Find("val"));
    } else if (name.local == "docDefaults") {
      is_in_defaults_ = true;
    } else if (name.local == "vanish" && inner_depth_ == 0) {
      const bool hides = IsOn(attributes.Find("val"));
      if (is_in_defaults_) {
        styles_.hides_all = hides;
      } else {
        style_.hides = hides;
      }
    }
  }
  void End(const XmlName& name) override {
    if (!IsWord(name)) return;
    if (IsInner(name)) --inner_depth_;
    if (name.local == "docDefaults") is_in_defaults_ = false;
    if (name.local == "style") styles_.styles.Add(family_, name_, std::exchange(style_, {}));
  }
  void Text(std::string_view) override {}

 private:
  // Properties of a paragraph's mark, of parts of a table, of what was before a change.
  static bool IsInner(const XmlName& name) {
    return name.local == "pPr" || name.local == "tblStylePr" || name.local == "rPrChange";
  }

  WordStyles& styles_;
  std::string family_;
  std::string name_;
  HidingStyles::Style style_;
  int64_t inner_depth_ = 0;
  bool is_in_defaults_ = false;
};

// The main part, and the parts with notes.
class WordVisitor : public XmlVisitor {
 public:
  WordVisitor(BlockText* text, const WordStyles* styles, Notes* notes)
      : text_(*text), word_styles_(*styles), notes_(*notes) {}

  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    if (skipped_depth_ > 0 || IsSkipped(name)) {
      ++skipped_depth_;
      return;
    }
    takes_text_ = name.local == "t";  // of a run, or of a formula
    if (!IsWord(name)) return;
    if (name.local == "r") {
      runs_.push_back({});
      HideRun(word_styles_.Hides(ParagraphStyle(), ""));
    } else if (name.local == "rStyle") {
      if (n_paragraph_properties_ == 0) {
        HideRun(word_styles_.Hides(ParagraphStyle(), attributes.Find("val")));
      }
    } else if (name.local == "pPr") {
      ++n_paragraph_properties_;
    } else if (name.local == "vanish") {
      // That of a paragraph's properties hides its mark alone.
      if (n_paragraph_properties_ == 0) HideRun(IsOn(attributes.Find("val")));
    }
    if (IsHidden() && name.local != "p" && name.local != "tbl") return;
    if (name.local == "p") {
      text_.OpenParagraph();
      styles_.emplace_back();
    } else if (name.local == "pStyle" && !styles_.empty()) {
      styles_.back().name = std::string(attributes.Find("val"));
    } else if (name.local == "numId" && !styles_.empty()) {
      styles_.back().is_list_item = attributes.Find("val") != "0";
    } else if (name.local == "tab") {
      text_.Append("\t");
    } else if (name.local == "br" || name.local == "cr") {
      text_.Append("\n");
    } else if (name.local == "noBreakHyphen") {
      text_.Append("-");
    } else if (name.local == "tbl") {
      text_.OpenTable();
    } else if (name.local == "footnoteReference" || name.local == "endnoteReference") {
      ReferTo(name.local.substr(0, name.local.find("Reference")), attributes.Find("id"));
    }
  }

  void End(const XmlName& name) override {
    if (skipped_depth_ > 0) {
      --skipped_depth_;
      return;
    }
    takes_text_ = false;
    if (!IsWord(name)) return;
    if (name.local == "r" && !runs_.empty()) {
      n_hidden_ -= runs_.back().is_hidden ? 1 : 0;
      runs_.pop_back();
    } else if (name.local == "pPr") {
      --n_paragraph_properties_;
    } else if (name.local == "p") {
      const Style style = std::move(styles_.back());
      styles_.pop_back();
      EndParagraph(style.name);
      // Lists may be numbered by their style: ListBullet, ListNumber, ListParagraph.
      text_.CloseParagraph(style.is_list_item || style.name.starts_with("List"));
    } else if (name.local == "tc") {
      text_.CloseCell();
    } else if (name.local == "tr") {
      text_.CloseRow();
    } else if (name.local == "tbl") {
      text_.CloseTable();
    }
  }

  void Text(std::string_view text) override {
    if (takes_text_ && skipped_depth_ == 0 && !IsHidden()) text_.Append(text);
  }

 protected:
  virtual void EndParagraph(const std::string& /*style*/) {}

  BlockText& text_;

 private:
  struct Style {
    std::string name;
    bool is_list_item = false;
  };

  struct Run {
    bool is_hidden = false;
  };

  // Of a run, or of one around it.
  bool IsHidden() const { return n_hidden_ > 0; }

  // Empty: the default.
  std::string_view ParagraphStyle() const {
    return styles_.empty() ? std::string_view() : styles_.back().name;
  }

  // The run that is open.
  void HideRun(bool hides) {
    if (runs_.empty() || runs_.back().is_hidden == hides) return;
    runs_.back().is_hidden = hides;
    n_hidden_ += hides ? 1 : -1;
  }

  void ReferTo(std::string_view kind, std::string_view id) {
    const auto note = notes_.find(StrCat(kind, id));
    if (note == notes_.end() || !text_.in_paragraph()) return;
    // One that is referred to again is the same note.
    std::string& label = note->second.label;
    const bool is_new = label.empty();
    if (is_new) label = StrCat(++n_notes_);
    text_.Append(StrCat("[", label, "]"));
    if (is_new) text_.AddNote(label, note->second.text);
  }

  const WordStyles& word_styles_;
  Notes& notes_;
  std::vector<Style> styles_;           // of the paragraphs that are open
  std::vector<Run> runs_;               // that are open: a box lies in one
  int64_t n_hidden_ = 0;                // of them
  int64_t n_paragraph_properties_ = 0;  // that are open
  int64_t skipped_depth_ = 0;
  int64_t n_notes_ = 0;  // that were referred to
  bool takes_text_ = false;
};

class MainVisitor : public WordVisitor {
 public:
  MainVisitor(BlockText* text, const WordStyles* styles, Notes* notes,
              std::function<void(std::string_view)> on_title, const bool* is_done)
      : WordVisitor(text, styles, notes), on_title_(std::move(on_title)), is_done_(*is_done) {}
  bool is_done() const override { return is_done_; }

 protected:
  void EndParagraph(const std::string& style) override {
    if (is_first_ && style == "Title") on_title_(text_.paragraph());
    is_first_ &= IsBlank(text_.paragraph());
  }

 private:
  const std::function<void(std::string_view)> on_title_;
  const bool& is_done_;
  bool is_first_ = true;
};

// Puts every note of its part into a map.
class NotesVisitor : public WordVisitor {
 public:
  NotesVisitor(BlockText* text, const WordStyles* styles, const std::string* current, Notes* notes)
      : WordVisitor(text, styles, &no_notes_), current_(*current), found_(*notes) {}

  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    if (IsNote(name) && n_open_++ == 0) {
      key_ = StrCat(name.local, attributes.Find("id"));
      begin_ = current_.size();
    }
    WordVisitor::Start(name, attributes);
  }
  void End(const XmlName& name) override {
    WordVisitor::End(name);
    if (!IsNote(name) || --n_open_ > 0) return;
    const std::string_view text = std::string_view(current_).substr(begin_);
    if (!IsBlank(text)) found_[key_] = {.text = OneLine(text, text.size())};
  }

 private:
  static bool IsNote(const XmlName& name) {
    return IsWord(name) && (name.local == "footnote" || name.local == "endnote");
  }

  const std::string& current_;  // all text so far
  Notes& found_;
  Notes no_notes_;
  int64_t n_open_ = 0;  // notes; only one in another could be more than one
  std::string key_;
  size_t begin_ = 0;
};

// Targets of a part's relations, by the last word of their type.
class RelationsVisitor : public XmlVisitor {
 public:
  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    if (name.local != "Relationship" || attributes.Find("TargetMode") == "External") return;
    const std::string_view type = attributes.Find("Type");
    targets.emplace(type.substr(type.rfind('/') + 1), attributes.Find("Target"));
  }
  void End(const XmlName&) override {}
  void Text(std::string_view) override {}

  std::map<std::string, std::string, std::less<>> targets;
};

// The relations of `part` ("" for the whole document) to other parts, as names of members.
std::map<std::string, std::string, std::less<>> RelationsOf(const ZipArchive& archive,
                                                            std::string_view part) {
  const size_t slash = part.rfind('/');
  const std::string folder(slash == part.npos ? "" : part.substr(0, slash + 1));
  const ZipMember* member =
      archive.Find(StrCat(folder, "_rels/", part.substr(folder.size()), ".rels"));
  RelationsVisitor visitor;
  if (member == nullptr || !ReadXml(archive, *member, kMaxRelationsBytes, &visitor).ok()) return {};
  for (auto& [type, target] : visitor.targets) {
    target = target.starts_with('/') ? target.substr(1) : folder + target;
  }
  return visitor.targets;
}

}  // namespace

std::string DocxMainPart(const ZipArchive& archive) {
  const auto relations = RelationsOf(archive, "");
  const auto main = relations.find("officeDocument");
  // Workbooks and presentations have one, too.
  if (main != relations.end() && main->second.starts_with("word/")) return main->second;
  return archive.Find("word/document.xml") == nullptr ? "" : "word/document.xml";
}

absl::Status ReadDocx(const ZipArchive& archive, const ReadLimits& limits, TextReceiver& receiver) {
  const std::string main = DocxMainPart(archive);
  const ZipMember* member = archive.Find(main);
  if (member == nullptr) {
    return absl::DataLossError(StrCat("broken DOCX: no part ", OneLine(main, 100)));
  }
  const auto relations = RelationsOf(archive, main);
  // Without them nothing is hidden by its style.
  WordStyles styles;
  const auto styles_part = relations.find("styles");
  if (const ZipMember* styles_member =
          archive.Find(styles_part == relations.end() ? "word/styles.xml" : styles_part->second);
      styles_member != nullptr) {
    StylesVisitor visitor(&styles);
    if (!ReadXml(archive, *styles_member, limits.max_zip_part_bytes, &visitor).ok()) styles = {};
  }
  Notes notes;
  for (const std::string_view kind : {"footnotes", "endnotes"}) {
    const auto part = relations.find(kind);
    const ZipMember* notes_member =
        archive.Find(part == relations.end() ? StrCat("word/", kind, ".xml") : part->second);
    if (notes_member == nullptr) continue;
    std::string text;
    BlockText blocks([&](std::string_view piece) { text += piece; });
    NotesVisitor visitor(&blocks, &styles, &text, &notes);
    RETURN_IF_ERROR(ReadXml(archive, *notes_member, limits.max_zip_part_bytes, &visitor));
  }

  const std::string title = DublinCoreTitle(archive, "docProps/core.xml");
  if (!title.empty()) receiver.Title(title);
  bool is_done = false;
  BlockText blocks([&](std::string_view piece) { is_done = is_done || !receiver.Text(piece); });
  const auto on_title = [&](std::string_view text) {
    if (title.empty()) receiver.Title(OneLine(text, kMaxTitleBytes));
  };
  MainVisitor visitor(&blocks, &styles, &notes, on_title, &is_done);
  return ReadXml(archive, *member, limits.max_zip_part_bytes, &visitor);
}

}  // namespace fovea::documents
