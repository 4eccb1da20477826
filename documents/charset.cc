#include "documents/charset.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_format.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

constexpr size_t kPieceBytes = size_t{64} << 10;
constexpr std::string_view kSpaces = " \t\r\n\f";

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// The first `wanted` (in lower case) in `text`, in any case.
size_t FindWord(std::string_view text, std::string_view wanted, size_t from = 0) {
  const auto at =
      std::search(text.begin() + static_cast<std::ptrdiff_t>(from), text.end(), wanted.begin(),
                  wanted.end(), [](char a, char b) { return Lower(a) == b; });
  return at == text.end() ? std::string_view::npos : static_cast<size_t>(at - text.begin());
}

// In `text`, from behind an attribute's name: ` = "value"` or ` = value` → value.
std::string_view Value(std::string_view text) {
  const auto skip_spaces = [&text] {
    text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  };
  skip_spaces();
  if (!text.starts_with('=')) return {};
  text.remove_prefix(1);
  skip_spaces();
  if (text.starts_with('"') || text.starts_with('\'')) text.remove_prefix(1);
  return text.substr(0, text.find_first_of(" \t\r\n\f\"';/>"));
}

// The charset of one <meta …>.
std::string_view MetaCharset(std::string_view tag) {
  const size_t at = FindWord(tag, "charset");
  if (at == std::string_view::npos) return {};
  // An attribute of its own, or part of a Content-Type: not a word of a description.
  if (FindWord(tag, "http-equiv") == std::string_view::npos && FindWord(tag, "content") < at) {
    return {};
  }
  return Value(tag.substr(at + std::string_view("charset").size()));
}

struct Label {
  std::string_view label;  // letters and digits, in lower case
  Charset charset;
};

// The encodings of the Encoding Standard, by the labels that pages use.
constexpr Label kLabels[] = {
    {"utf8", {"UTF-8", false}},
    {"utf16", {"UTF-8", false}},
    {"utf16le", {"UTF-8", false}},
    {"utf16be", {"UTF-8", false}},
    {"ascii", {"CP1252", true}},
    {"usascii", {"CP1252", true}},
    {"iso88591", {"CP1252", true}},
    {"latin1", {"CP1252", true}},
    {"l1", {"CP1252", true}},
    {"iso88592", {"ISO-8859-2", true}},
    {"latin2", {"ISO-8859-2", true}},
    {"iso88593", {"ISO-8859-3", true}},
    {"iso88594", {"ISO-8859-4", true}},
    {"iso88595", {"ISO-8859-5", true}},
    {"iso88596", {"ISO-8859-6", true}},
    {"iso88597", {"ISO-8859-7", true}},
    {"iso88598", {"ISO-8859-8", true}},
    {"iso88598i", {"ISO-8859-8", true}},
    {"iso88599", {"CP1254", true}},
    {"latin5", {"CP1254", true}},
    {"iso885910", {"ISO-8859-10", true}},
    {"iso885911", {"CP874", true}},
    {"iso885913", {"ISO-8859-13", true}},
    {"iso885914", {"ISO-8859-14", true}},
    {"iso885915", {"ISO-8859-15", true}},
    {"latin9", {"ISO-8859-15", true}},
    {"iso885916", {"ISO-8859-16", true}},
    {"tis620", {"CP874", true}},
    {"windows874", {"CP874", true}},
    {"windows1250", {"CP1250", true}},
    {"windows1251", {"CP1251", true}},
    {"windows1252", {"CP1252", true}},
    {"windows1253", {"CP1253", true}},
    {"windows1254", {"CP1254", true}},
    {"windows1255", {"CP1255", true}},
    {"windows1256", {"CP1256", true}},
    {"windows1257", {"CP1257", true}},
    {"windows1258", {"CP1258", true}},
    {"koi8r", {"KOI8-R", true}},
    {"koi8u", {"KOI8-U", true}},
    {"ibm866", {"IBM866", true}},
    {"cp866", {"IBM866", true}},
    {"macintosh", {"MACINTOSH", true}},
    {"xmacroman", {"MACINTOSH", true}},
    {"xmaccyrillic", {"MAC-CYRILLIC", true}},
    {"gb2312", {"GB18030", false}},
    {"gbk", {"GB18030", false}},
    {"xgbk", {"GB18030", false}},
    {"gb18030", {"GB18030", false}},
    {"big5", {"BIG5-HKSCS", false}},
    {"big5hkscs", {"BIG5-HKSCS", false}},
    {"eucjp", {"EUC-JP-MS", false}},
    {"xeucjp", {"EUC-JP-MS", false}},
    {"iso2022jp", {"ISO-2022-JP", false}},
    {"shiftjis", {"CP932", false}},
    {"sjis", {"CP932", false}},
    {"xsjis", {"CP932", false}},
    {"mskanji", {"CP932", false}},
    {"windows31j", {"CP932", false}},
    {"euckr", {"UHC", false}},
    {"ksc5601", {"UHC", false}},
    {"ksc56011987", {"UHC", false}},
    {"windows949", {"UHC", false}},
};

}  // namespace

std::string_view CharsetOfMark(std::string_view head) {
  constexpr std::string_view kUtf32Le("\xFF\xFE\0\0", 4);
  constexpr std::string_view kUtf32Be("\0\0\xFE\xFF", 4);
  if (head.starts_with(kUtf32Le)) return "UTF-32LE";
  if (head.starts_with(kUtf32Be)) return "UTF-32BE";
  if (head.starts_with("\xFF\xFE")) return "UTF-16LE";
  if (head.starts_with("\xFE\xFF")) return "UTF-16BE";
  return "";
}

bool LooksLikeUtf16(std::string_view bytes) {
  constexpr size_t kLeastBytes = 8;
  constexpr size_t kMostBytes = 512;
  bytes = bytes.substr(0, kMostBytes);
  if (bytes.size() < kLeastBytes) return false;
  std::array<size_t, 2> n_nul = {0, 0};  // at even and odd places
  for (size_t i = 0; i < bytes.size(); ++i) n_nul[i % 2] += bytes[i] == '\0' ? 1 : 0;
  const size_t most = std::max(n_nul[0], n_nul[1]);
  return std::min(n_nul[0], n_nul[1]) == 0 && 4 * most >= 3 * (bytes.size() / 2);
}

std::string_view XmlCharset(std::string_view head) {
  if (head.starts_with(kByteOrderMark)) head.remove_prefix(kByteOrderMark.size());
  if (!head.starts_with("<?xml")) return {};
  const std::string_view declaration = head.substr(0, head.find('>'));
  const size_t at = declaration.find("encoding");
  if (at == std::string_view::npos) return {};
  return Value(declaration.substr(at + std::string_view("encoding").size()));
}

std::string_view HtmlCharset(std::string_view head) {
  head = head.substr(0, kDeclarationBytes);
  for (size_t at = head.find('<'); at != std::string_view::npos; at = head.find('<', at + 1)) {
    const std::string_view rest = head.substr(at);
    if (rest.starts_with("<!--")) {
      const size_t end = rest.find("-->");
      if (end == std::string_view::npos) break;
      at += end;
    } else if (FindWord(rest.substr(0, 5), "<meta") == 0) {
      const std::string_view charset = MetaCharset(rest.substr(0, rest.find('>')));
      if (!charset.empty()) return charset;
    }
  }
  return XmlCharset(head);
}

bool FindCharset(std::string_view label, Charset* charset) {
  std::string plain;
  for (const char c : label.substr(0, 64)) {
    const char lower = Lower(c);
    if ((lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9')) plain.push_back(lower);
  }
  // "x-cp1252" and "cp1252" are windows-1252.
  for (const std::string_view prefix : {"xcp125", "cp125"}) {
    if (plain.starts_with(prefix)) plain = StrCat("windows125", plain.substr(prefix.size()));
  }
  const Label* found = std::find_if(std::begin(kLabels), std::end(kLabels),
                                    [&](const Label& known) { return known.label == plain; });
  if (found == std::end(kLabels)) return false;
  *charset = found->charset;
  return true;
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(std::string_view iconv_name) {
  const iconv_t converter = iconv_open("UTF-8", std::string(iconv_name).c_str());
  if (converter == reinterpret_cast<iconv_t>(-1)) {
    return absl::FailedPreconditionError(
        StrCat("this system cannot convert ", iconv_name,
               ": install its conversions (package libc-gconv-modules-extra, where there is one)"));
  }
  return std::unique_ptr<Decoder>(new Decoder(converter, iconv_name));
}

Decoder::~Decoder() { iconv_close(converter_); }

void Decoder::Reset() {
  iconv(converter_, nullptr, nullptr, nullptr, nullptr);
  pending_.clear();
  offset_ = 0;
}

absl::Status Decoder::Decode(std::string_view bytes, bool at_end, std::string* out) {
  pending_ += bytes;
  char* from = pending_.data();
  size_t left = pending_.size();
  std::array<char, kPieceBytes> piece;
  bool flushed = false;
  while (left > 0 || (at_end && !flushed)) {
    char* to = piece.data();
    size_t room = piece.size();
    // Without input: what a stateful encoding still holds.
    flushed = left == 0;
    const size_t result = iconv(converter_, flushed ? nullptr : &from, &left, &to, &room);
    const int error = errno;
    out->append(piece.data(), piece.size() - room);
    if (result != static_cast<size_t>(-1) || error == E2BIG) continue;
    if (error == EINVAL && !at_end) break;  // the start of a character
    return absl::InvalidArgumentError(absl::StrFormat(
        "not %s: byte 0x%02X at byte offset %d%s", name_, static_cast<unsigned char>(*from),
        offset_ + static_cast<uint64_t>(from - pending_.data()),
        error == EINVAL ? ", where the text is cut off" : ""));
  }
  const size_t n_read = pending_.size() - left;
  pending_.erase(0, n_read);
  offset_ += n_read;
  return absl::OkStatus();
}

absl::StatusOr<std::string> HtmlToUtf8(std::string html, std::string_view name) {
  const std::string_view marked = CharsetOfMark(html);
  const std::string_view declared = marked.empty() ? HtmlCharset(html) : marked;
  Charset charset{marked.data(), false};
  if (marked.empty()) {
    if (html.starts_with(kByteOrderMark) || declared.empty()) return html;
    const bool is_utf8 = ScanUtf8(html).valid_bytes == html.size();
    if (!FindCharset(declared, &charset)) {
      if (is_utf8) return html;
      return absl::InvalidArgumentError(StrCat(name, ": declares the encoding ",
                                               OneLine(declared, 40),
                                               ", which is none that is known: convert it to "
                                               "UTF-8, for example with iconv"));
    }
    // Text of many bytes that is valid UTF-8 by chance is rare; a wrong declaration is not.
    if (charset.iconv_name == std::string_view("UTF-8") || (charset.one_byte && is_utf8)) {
      return html;
    }
  }
  absl::StatusOr<std::unique_ptr<Decoder>> decoder = Decoder::Create(charset.iconv_name);
  if (!decoder.ok()) return Annotate(decoder.status(), name);
  std::string text;
  const absl::Status status = (*decoder)->Decode(html, /*at_end=*/true, &text);
  if (status.ok()) return text;
  if (ScanUtf8(html).valid_bytes == html.size()) return html;
  return absl::InvalidArgumentError(StrCat(name, ": ", status.message(),
                                           ", and it says that it is ", OneLine(declared, 40),
                                           ": convert it to UTF-8, for example with iconv"));
}

}  // namespace fovea::documents
