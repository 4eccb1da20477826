#include "documents/odt.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

#include "documents/block_text.h"
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
  return local == "tracked-changes" || local == "ruby-text" || local == "hidden-text";
}

class OdtVisitor : public XmlVisitor {
 public:
  OdtVisitor(BlockText* text, const bool* is_done) : text_(*text), is_done_(*is_done) {}

  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    const std::string_view vocabulary = Vocabulary(name);
    if (skipped_depth_ > 0 || IsSkipped(vocabulary, name.local)) {
      ++skipped_depth_;
      return;
    }
    if (vocabulary == "table" && name.local == "table") text_.OpenTable();
    if (vocabulary != "text") return;
    if (name.local == "p" || name.local == "h") {
      text_.OpenParagraph();
    } else if (name.local == "list") {
      ++list_depth_;
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
      text_.CloseParagraph(/*is_list_item=*/list_depth_ > 0);
    } else if (name.local == "list") {
      --list_depth_;
    } else if (name.local == "note-citation") {
      in_citation_ = false;
    } else if (name.local == "note-body") {
      text_.CloseNote();
    }
  }

  void Text(std::string_view text) override {
    if (skipped_depth_ > 0) return;
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

  static constexpr size_t kMaxLabelBytes = 64;

  BlockText& text_;
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
  bool is_done = false;
  BlockText blocks([&](std::string_view piece) { is_done = is_done || !receiver.Text(piece); });
  OdtVisitor visitor(&blocks, &is_done);
  return ReadXml(archive, *content, limits.max_zip_part_bytes, &visitor);
}

}  // namespace fovea::documents
