#include "documents/xml.h"

#include <expat.h>

#include <memory>
#include <string>
#include <type_traits>

#include "absl/strings/escaping.h"
#include "documents/charset.h"
#include "documents/titles.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

// Between a namespace's URI and a name; expat lets it into neither.
constexpr char kSeparator = '\n';

XmlName NameOf(std::string_view name) {
  const size_t at = name.rfind(kSeparator);
  if (at == std::string_view::npos) return {{}, name};
  return {name.substr(0, at), name.substr(at + 1)};
}

// The first character of `text`, which is valid UTF-8.
int CodePoint(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return byte(0);
  const size_t n_bytes = byte(0) < 0xE0 ? 2 : byte(0) < 0xF0 ? 3 : 4;
  int code = byte(0) & (0xFF >> (n_bytes + 1));
  for (size_t i = 1; i < n_bytes; ++i) code = code << 6 | (byte(i) & 0x3F);
  return code;
}

struct FreeParser {
  void operator()(XML_Parser parser) const { XML_ParserFree(parser); }
};

struct Parsing {
  XML_Parser parser;
  XmlVisitor* visitor;
  bool declares_entities = false;

  void StopIfDone() {
    if (visitor->is_done()) XML_StopParser(parser, XML_FALSE);
  }
};

// expat's handlers; `data` is the Parsing.
void XMLCALL OnStart(void* data, const char* name, const char** attributes) {
  auto* parsing = static_cast<Parsing*>(data);
  parsing->visitor->Start(NameOf(name), XmlAttributes(attributes));
  parsing->StopIfDone();
}

void XMLCALL OnEnd(void* data, const char* name) {
  auto* parsing = static_cast<Parsing*>(data);
  parsing->visitor->End(NameOf(name));
  parsing->StopIfDone();
}

void XMLCALL OnText(void* data, const char* text, int size) {
  auto* parsing = static_cast<Parsing*>(data);
  parsing->visitor->Text(std::string_view(text, static_cast<size_t>(size)));
  parsing->StopIfDone();
}

void XMLCALL OnEntity(void* data, const char*, int, const char*, int, const char*, const char*,
                      const char*, const char*) {
  auto* parsing = static_cast<Parsing*>(data);
  parsing->declares_entities = true;
  XML_StopParser(parsing->parser, XML_FALSE);
}

// expat knows UTF-8, UTF-16, ASCII and Latin-1; others of one byte a character by their table.
int XMLCALL OnUnknownEncoding(void*, const char* name, XML_Encoding* info) {
  constexpr int kNoCharacter = -1;
  Charset charset;
  if (!FindCharset(name, &charset) || !charset.one_byte) return XML_STATUS_ERROR;
  const auto decoder = Decoder::Create(charset.iconv_name);
  if (!decoder.ok()) return XML_STATUS_ERROR;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    std::string text;
    (*decoder)->Reset();
    const bool is_character =
        (*decoder)->Decode(std::string_view(&c, 1), /*at_end=*/true, &text).ok() && !text.empty();
    info->map[byte] = is_character ? CodePoint(text) : kNoCharacter;
  }
  info->data = nullptr;
  info->convert = nullptr;
  info->release = nullptr;
  return XML_STATUS_OK;
}

absl::Status Broken(const ZipMember& member, std::string_view what) {
  return absl::DataLossError(
      StrCat("broken XML: ", absl::Utf8SafeCHexEscape(ToAbsl(OneLine(member.name, 100))), ": ",
             what, ": save it again"));
}

// The text of the first dc:title.
class TitleVisitor : public XmlVisitor {
 public:
  void Start(const XmlName& name, const XmlAttributes&) override {
    in_title_ = name.local == "title" && name.space == "http://purl.org/dc/elements/1.1/";
  }
  void End(const XmlName&) override {
    is_done_ = in_title_ && !IsBlank(title);
    in_title_ = false;
  }
  void Text(std::string_view text) override {
    if (in_title_ && title.size() < kMaxTitleBytes) title += text;
  }
  bool is_done() const override { return is_done_; }

  std::string title;

 private:
  bool in_title_ = false;
  bool is_done_ = false;
};

}  // namespace

std::string_view XmlAttributes::Find(std::string_view local) const {
  for (const char** pair = pairs_; *pair != nullptr; pair += 2) {
    if (NameOf(pair[0]).local == local) return pair[1];
  }
  return {};
}

absl::Status ReadXml(const ZipArchive& archive, const ZipMember& member, uint64_t max_size_bytes,
                     XmlVisitor* visitor) {
  const std::unique_ptr<std::remove_pointer_t<XML_Parser>, FreeParser> parser(
      XML_ParserCreateNS(nullptr, kSeparator));
  if (parser == nullptr) return absl::ResourceExhaustedError("no memory to read XML");
  Parsing parsing{parser.get(), visitor};
  XML_SetUserData(parser.get(), &parsing);
  XML_SetElementHandler(parser.get(), &OnStart, &OnEnd);
  XML_SetCharacterDataHandler(parser.get(), &OnText);
  XML_SetEntityDeclHandler(parser.get(), &OnEntity);
  XML_SetUnknownEncodingHandler(parser.get(), &OnUnknownEncoding, nullptr);
  const auto parse = [&](std::string_view piece, bool is_last) {
    if (XML_Parse(parser.get(), piece.data(), static_cast<int>(piece.size()), is_last) ==
        XML_STATUS_OK) {
      return absl::OkStatus();
    }
    if (parsing.declares_entities) return Broken(member, "it declares entities of its own");
    // A visitor that has enough ends the unpacking, too.
    if (visitor->is_done()) return absl::CancelledError("");
    return Broken(member, StrCat("line ", XML_GetCurrentLineNumber(parser.get()), ", column ",
                                 XML_GetCurrentColumnNumber(parser.get()), ": ",
                                 XML_ErrorString(XML_GetErrorCode(parser.get()))));
  };
  absl::Status status = archive.Unpack(member, max_size_bytes,
                                       [&](std::string_view piece) { return parse(piece, false); });
  if (status.ok()) status = parse("", true);
  return visitor->is_done() && absl::IsCancelled(status) ? absl::OkStatus() : status;
}

std::string DublinCoreTitle(const ZipArchive& archive, std::string_view part,
                            uint64_t max_size_bytes) {
  const ZipMember* member = archive.Find(part);
  if (member == nullptr) return "";
  TitleVisitor visitor;
  // Properties are beside the text: it is read whatever they are like.
  ReadXml(archive, *member, max_size_bytes, &visitor).IgnoreError();
  return OneLine(visitor.title, kMaxTitleBytes);
}

}  // namespace fovea::documents
