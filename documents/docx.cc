#include "documents/docx.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "documents/block_text.h"
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

// The main part, and the parts with notes.
class WordVisitor : public XmlVisitor {
 public:
  WordVisitor(BlockText* text, Notes* notes) : text_(*text), notes_(*notes) {}

  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    if (skipped_depth_ > 0 || IsSkipped(name)) {
      ++skipped_depth_;
      return;
    }
    takes_text_ = name.local == "t";  // of a run, or of a formula
    if (!IsWord(name)) return;
    if (name.local == "r") {
      runs_.push_back({});
    } else if (name.local == "pPr") {
      ++n_paragraph_properties_;
    } else if (name.local == "vanish") {
      // That of a paragraph's properties hides its mark alone.
      if (n_paragraph_properties_ == 0) HideRun(attributes.Find("val"));
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

  // The run that is open, as its properties say.
  void HideRun(std::string_view value) {
    const bool hides = value != "0" && value != "false" && value != "off";
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
  MainVisitor(BlockText* text, Notes* notes, std::function<void(std::string_view)> on_title,
              const bool* is_done)
      : WordVisitor(text, notes), on_title_(std::move(on_title)), is_done_(*is_done) {}
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
  NotesVisitor(BlockText* text, const std::string* current, Notes* notes)
      : WordVisitor(text, &no_notes_), current_(*current), found_(*notes) {}

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
  Notes notes;
  for (const std::string_view kind : {"footnotes", "endnotes"}) {
    const auto part = relations.find(kind);
    const ZipMember* notes_member =
        archive.Find(part == relations.end() ? StrCat("word/", kind, ".xml") : part->second);
    if (notes_member == nullptr) continue;
    std::string text;
    BlockText blocks([&](std::string_view piece) { text += piece; });
    NotesVisitor visitor(&blocks, &text, &notes);
    RETURN_IF_ERROR(ReadXml(archive, *notes_member, limits.max_zip_part_bytes, &visitor));
  }

  const std::string title = DublinCoreTitle(archive, "docProps/core.xml");
  if (!title.empty()) receiver.Title(title);
  bool is_done = false;
  BlockText blocks([&](std::string_view piece) { is_done = is_done || !receiver.Text(piece); });
  const auto on_title = [&](std::string_view text) {
    if (title.empty()) receiver.Title(OneLine(text, kMaxTitleBytes));
  };
  MainVisitor visitor(&blocks, &notes, on_title, &is_done);
  return ReadXml(archive, *member, limits.max_zip_part_bytes, &visitor);
}

}  // namespace fovea::documents
