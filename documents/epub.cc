#include "documents/epub.h"

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "documents/charset.h"
#include "documents/errors.h"
#include "documents/html.h"
#include "documents/utf8.h"
#include "documents/xhtml.h"
#include "documents/xml.h"

namespace fovea::documents {
namespace {

constexpr uint64_t kMaxPackageBytes = uint64_t{64} << 20;

// META-INF/container.xml: where the package document is.
class ContainerVisitor : public XmlVisitor {
 public:
  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    if (name.local == "rootfile" && path.empty()) path = std::string(attributes.Find("full-path"));
  }
  void End(const XmlName&) override {}
  void Text(std::string_view) override {}

  std::string path;
};

// The package document: the book's files, and their order.
class PackageVisitor : public XmlVisitor {
 public:
  void Start(const XmlName& name, const XmlAttributes& attributes) override {
    if (name.local == "item") {
      const std::string_view type = attributes.Find("media-type");
      if (type == "application/xhtml+xml" || type == "text/html" || type.empty()) {
        pages.emplace(attributes.Find("id"), attributes.Find("href"));
      } else if (type == "image/svg+xml") {
        drawings.emplace(attributes.Find("id"));
      }
    } else if (name.local == "itemref") {
      order.emplace_back(attributes.Find("idref"));
    }
  }
  void End(const XmlName&) override {}
  void Text(std::string_view) override {}

  std::map<std::string, std::string> pages;  // by id
  std::set<std::string> drawings;            // ids of pages in SVG, which may hold text
  std::vector<std::string> order;            // ids
};

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The member that `href` in the file `base` points to.
std::string Resolve(std::string_view base, std::string_view href) {
  href = href.substr(0, href.find('#'));
  std::string decoded;
  for (size_t i = 0; i < href.size(); ++i) {
    if (href[i] == '%' && i + 2 < href.size() && HexDigit(href[i + 1]) >= 0 &&
        HexDigit(href[i + 2]) >= 0) {
      decoded.push_back(static_cast<char>(HexDigit(href[i + 1]) * 16 + HexDigit(href[i + 2])));
      i += 2;
    } else {
      decoded.push_back(href[i]);
    }
  }
  const size_t slash = base.rfind('/');
  const std::string folder(slash == base.npos ? "" : base.substr(0, slash + 1));
  const bool is_absolute = decoded.starts_with('/');
  return std::filesystem::path(is_absolute ? decoded.substr(1) : folder + decoded)
      .lexically_normal()
      .generic_string();
}

// The text of one page. An error names it, and what to do.
absl::StatusOr<std::string> ReadPage(const ZipArchive& archive, const ZipMember& page,
                                     bool is_encrypted, const ReadLimits& limits) {
  const std::string name = absl::Utf8SafeCHexEscape(ToAbsl(OneLine(page.name, 100)));
  absl::StatusOr<std::string> html = archive.Read(page, limits.max_html_bytes);
  if (!html.ok()) return Annotate(html.status(), StrCat("broken EPUB: ", name));
  ASSIGN_OR_RETURN(html, HtmlToUtf8(*std::move(html), name));
  if (const size_t valid_bytes = ScanUtf8(*html).valid_bytes; valid_bytes < html->size()) {
    return absl::InvalidArgumentError(
        is_encrypted ? "encrypted EPUB: its pages cannot be read without its key"
                     : StrCat("broken EPUB: ", name, ": ", NotTextReason(*html, valid_bytes, 0),
                              ", and the page declares no other encoding: save the book again, ",
                              "or this page as UTF-8"));
  }
  absl::StatusOr<HtmlText> text = ExtractHtml(XhtmlToHtml(*html), limits);
  if (!text.ok()) return Annotate(text.status(), name);
  return std::move(text->text);
}

}  // namespace

absl::Status ReadEpub(const ZipArchive& archive, const ReadLimits& limits, TextReceiver& receiver) {
  ContainerVisitor container;
  const ZipMember* member = archive.Find("META-INF/container.xml");
  if (member == nullptr) return absl::DataLossError("broken EPUB: no META-INF/container.xml");
  RETURN_IF_ERROR(ReadXml(archive, *member, kMaxPackageBytes, &container));
  const ZipMember* package_member = archive.Find(container.path);
  if (package_member == nullptr) {
    return absl::DataLossError(
        StrCat("broken EPUB: no package document '", OneLine(container.path, 100), "'"));
  }
  PackageVisitor package;
  RETURN_IF_ERROR(ReadXml(archive, *package_member, kMaxPackageBytes, &package));
  const std::string title = DublinCoreTitle(archive, container.path, kMaxPackageBytes);
  if (!title.empty()) receiver.Title(title);

  const bool is_encrypted = archive.Find("META-INF/encryption.xml") != nullptr;
  bool any = false;
  // A document is content: a page that comes again in the order is not repeated.
  std::set<std::string> seen;
  int64_t n_missing = 0;
  int64_t n_unreadable = 0;
  absl::Status unreadable;  // the first one
  int64_t n_drawings = 0;
  for (const std::string& id : package.order) {
    const auto href = package.pages.find(id);
    if (href == package.pages.end()) {  // a picture
      n_drawings += static_cast<int64_t>(package.drawings.erase(id));
      continue;
    }
    const auto [path, is_new] = seen.insert(Resolve(container.path, href->second));
    if (!is_new) continue;
    const ZipMember* page = archive.Find(*path);
    if (page == nullptr) {
      ++n_missing;
      continue;
    }
    absl::StatusOr<std::string> text = ReadPage(archive, *page, is_encrypted, limits);
    if (!text.ok()) {
      if (n_unreadable++ == 0) unreadable = text.status();
      continue;
    }
    if (IsBlank(*text)) continue;
    if (!receiver.Text(StrCat(any ? "\n\n" : "", *text))) return absl::OkStatus();
    any = true;
  }
  // Its other pages may have had text.
  if (n_unreadable > 0 && !any) return unreadable;
  if (n_missing > 0 && !any) {
    return absl::DataLossError(
        StrCat("broken EPUB: ", n_missing, " of ", seen.size(), " pages are missing in the book"));
  }
  std::string warning;
  const auto warn = [&warning](std::string_view what) {
    warning += StrCat(warning.empty() ? "" : "; ", what);
  };
  if (n_missing > 0) warn(StrCat(n_missing, " of ", seen.size(), " pages are missing in the book"));
  if (n_unreadable > 0) {
    warn(StrCat(n_unreadable, " of ", seen.size(),
                " pages cannot be read, the first: ", unreadable.message()));
  }
  if (n_drawings > 0) {
    warn(StrCat(n_drawings,
                n_drawings == 1 ? " page is a drawing (SVG)" : " pages are drawings (SVG)",
                ", whose text is not read"));
  }
  if (!warning.empty()) receiver.Warning(warning);
  return absl::OkStatus();
}

}  // namespace fovea::documents
