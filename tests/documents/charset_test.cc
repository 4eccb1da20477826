#include "documents/charset.h"

#include <iconv.h>

#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

class CharsetTest : public DocumentFilesTest {};

// `text` in another encoding.
std::string Encode(std::string text, const char* charset) {
  const iconv_t converter = iconv_open(charset, "UTF-8");
  EXPECT_NE(converter, reinterpret_cast<iconv_t>(-1)) << charset;
  std::string bytes(4 * text.size() + 8, '\0');
  char* from = text.data();
  char* to = bytes.data();
  size_t left = text.size(), room = bytes.size();
  EXPECT_NE(iconv(converter, &from, &left, &to, &room), static_cast<size_t>(-1)) << charset;
  iconv(converter, nullptr, nullptr, &to, &room);
  iconv_close(converter);
  bytes.resize(bytes.size() - room);
  return bytes;
}

std::string Page(const std::string& head, const std::string& text) {
  return "<!DOCTYPE html><html><head>" + head + "</head><body><p>" + text + "</p></body></html>";
}

TEST_F(CharsetTest, ReadsPagesInTheEncodingThatTheyDeclare) {
  const struct {
    const char *charset, *label, *text;
  } pages[] = {{"ISO-8859-1", "iso-8859-1", "Die Brücke wurde 1863 eröffnet."},
               {"CP1252", "ISO-8859-1", "Der Zöllner hieß „Rüdiger“."},
               {"CP1252", "windows-1252", "Der Zöllner hieß „Rüdiger“."},
               {"CP1251", "cp1251", "Мост открыли в 1863 году."},
               {"KOI8-R", "koi8-r", "Мост открыли в 1863 году."},
               {"CP932", "Shift_JIS", "図書館は午前九時に開きます。①"},
               {"EUC-JP", "euc-jp", "図書館は午前九時に開きます。"},
               {"ISO-2022-JP", "iso-2022-jp", "図書館は午前九時に開きます。"},
               {"GBK", "gb2312", "图书馆九点开门。"},
               {"BIG5", "Big5", "圖書館九點開門。"},
               {"CP949", "ks_c_5601-1987", "도서관은 아홉 시에 엽니다."},
               {"ISO-8859-2", "latin2", "Zażółć gęślą jaźń."},
               {"UTF-8", "utf-8", "Žluťoučký kůň"}};
  for (const auto& [charset, label, text] : pages) {
    const std::string name = label;
    for (const std::string& head :
         {"<meta charset=\"" + name + "\">", "<META CharSet=" + name + ">",
          "<!-- <meta charset=big5> --><title>t</title><meta http-equiv='Content-Type' "
          "content='text/html; charset=" +
              name + "'>"}) {
      EXPECT_EQ(TextOf(Write("a.html", Encode(Page(head, text), charset))), text) << head;
    }
    const std::string xml = "<?xml version=\"1.0\" encoding=\"" + name + "\"?>";
    EXPECT_EQ(TextOf(Write("b.html", Encode(xml + Page("", text), charset))), text) << xml;
  }
}

TEST_F(CharsetTest, AMarkCountsMoreThanADeclaration) {
  const std::string page = Page("<meta charset=iso-8859-1>", "Köhler heißt 九 😀.");
  for (const char* charset : {"UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE", "UTF-8"}) {
    EXPECT_EQ(TextOf(Write("a.html", Encode("\xEF\xBB\xBF" + page, charset))), "Köhler heißt 九 😀.")
        << charset;
  }
}

TEST_F(CharsetTest, ReadsTextWithAMarkInPieces) {
  std::string text = "Der Bürgermeister heißt Köhler, 九 😀.\r\n";
  while (text.size() < 200000) text += text;
  for (const char* charset : {"UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE", "UTF-8"}) {
    EXPECT_EQ(TextOf(Write("a.txt", Encode("\xEF\xBB\xBF" + text, charset))), text) << charset;
  }
}

TEST_F(CharsetTest, ReadsXmlInTheEncodingThatItDeclares) {
  const std::string xml = "<?xml version='1.0' encoding='ISO-8859-1'?>\n<a>Brücke</a>\n";
  EXPECT_EQ(TextOf(Write("a.xml", Encode(xml, "ISO-8859-1"))), xml);
  EXPECT_EQ(TextOf(Write("a.xml", xml)), xml);  // it is UTF-8, whatever it says
}

TEST_F(CharsetTest, ValidUtf8IsNotSpoiltByAWrongDeclaration) {
  for (const char* label : {"iso-8859-1", "windows-1251", "no-such-charset", "shift_jis"}) {
    const std::string head = "<meta charset=" + std::string(label) + ">";
    EXPECT_EQ(TextOf(Write("a.html", Page(head, "Die Brücke – 1863."))), "Die Brücke – 1863.")
        << label;
  }
}

TEST_F(CharsetTest, WordsOfADescriptionDeclareNothing) {
  EXPECT_EQ(HtmlCharset("<meta name=description content='the charset=big5 explained'>"), "");
  EXPECT_EQ(HtmlCharset("<p>charset=big5 <metabolism charset"), "");
  EXPECT_EQ(HtmlCharset("<!-- <meta charset=big5>"), "");
  EXPECT_EQ(XmlCharset("text <?xml encoding='big5'?>"), "");
}

TEST_F(CharsetTest, SaysWhatIsWrong) {
  EXPECT_THAT(
      OpenError(Write("a.html", Page("<meta charset=klingon>",
                                     "Br\xFC"
                                     "cke"))),
      IsStatus(absl::StatusCode::kInvalidArgument, "a.html: declares the encoding klingon"));
  EXPECT_THAT(OpenError(Write("b.html", Page("<meta charset=shift_jis>", "Br\xFC\xFC\xFF"))),
              IsStatus(absl::StatusCode::kInvalidArgument, "b.html: not CP932: byte 0xFC"));
  EXPECT_THAT(OpenError(Write("c.html", Page("",
                                             "Br\xFC"
                                             "cke"))),
              IsStatus(absl::StatusCode::kInvalidArgument, "c.html: not UTF-8: byte 0xFC"));
  EXPECT_THAT(OpenError(Write("cut.txt", std::string_view("\xFF\xFEh\0i", 5))),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "cut.txt: not UTF-16LE: byte 0x69 at byte offset 4, where the text is cut"));
  EXPECT_THAT(OpenError(Write("half.txt", std::string_view("\xFF\xFEh\0\x00\xD8h\0", 8))),
              IsStatus(absl::StatusCode::kInvalidArgument, "half.txt: not UTF-16LE"));
  EXPECT_THAT(OpenError(Write("nul.txt", std::string_view("\xFF\xFEh\0\0\0", 6))),
              IsStatus(absl::StatusCode::kInvalidArgument, "nul.txt: not text: NUL"));
}

TEST_F(CharsetTest, AMarkAloneIsEmpty) {
  EXPECT_THAT(OpenError(Write("a.txt", "\xFF\xFE")),
              IsStatus(absl::StatusCode::kInvalidArgument, "a.txt: empty"));
  EXPECT_THAT(OpenError(Write("a.html", "\xFE\xFF")),
              IsStatus(absl::StatusCode::kInvalidArgument, "a.html: empty"));
}

// Names of files never reach the system's converters as they are.
TEST_F(CharsetTest, OnlyEncodingsOfTheWebAreLookedUp) {
  Charset charset;
  EXPECT_TRUE(FindCharset(" Latin-1", &charset));
  for (const char* label :
       {"", "ISO-2022-CN-EXT", "UTF-7", "../../etc/x", "CP1252//IGNORE", "cp125", "cp12599"}) {
    EXPECT_FALSE(FindCharset(label, &charset)) << label;
  }
}

}  // namespace
}  // namespace fovea::documents
