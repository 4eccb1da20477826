#include "documents/zip_document.h"

#include <algorithm>

#include "documents/file_kind.h"
#include "tests/base/make_zip.h"
#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

constexpr char kWord[] =
    "xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\" "
    "xmlns:mc=\"http://schemas.openxmlformats.org/markup-compatibility/2006\" "
    "xmlns:m=\"http://schemas.openxmlformats.org/officeDocument/2006/math\"";
constexpr char kProperties[] =
    "<cp:coreProperties xmlns:cp=\"x\" xmlns:dc=\"http://purl.org/dc/elements/1.1/\">"
    "<dc:creator>Somebody</dc:creator><dc:title>The  title\n&amp; more</dc:title>"
    "<dc:title>Another</dc:title></cp:coreProperties>";

std::string Relation(const std::string& type, const std::string& target) {
  return "<Relationships xmlns=\"r\"><Relationship Id=\"1\" Type=\"http://x/" + type +
         "\" Target=\"" + target + "\"/></Relationships>";
}

std::vector<ZipFile> DocxFiles(const std::string& body) {
  return {{"[Content_Types].xml", "<Types/>", kZipDeflated},
          {"_rels/.rels", Relation("officeDocument", "word/document.xml"), kZipDeflated},
          {"word/document.xml",
           std::string("<?xml version=\"1.0\" encoding=\"UTF-8\"?><w:document ") + kWord +
               "><w:body>" + body + "</w:body></w:document>",
           kZipDeflated}};
}

std::string WordParagraph(const std::string& runs, const std::string& properties = "") {
  return "<w:p><w:pPr>" + properties + "</w:pPr>" + runs + "</w:p>";
}
std::string TextRun(const std::string& text) {
  return "<w:r><w:t xml:space=\"preserve\">" + text + "</w:t></w:r>";
}

std::vector<ZipFile> OdtFiles(const std::string& body) {
  return {
      {"mimetype", "application/vnd.oasis.opendocument.text"},
      {"content.xml",
       "<office:document-content xmlns:office=\"urn:oasis:names:tc:opendocument:xmlns:office:1.0\" "
       "xmlns:text=\"urn:oasis:names:tc:opendocument:xmlns:text:1.0\" "
       "xmlns:table=\"urn:oasis:names:tc:opendocument:xmlns:table:1.0\" "
       "xmlns:draw=\"urn:oasis:names:tc:opendocument:xmlns:drawing:1.0\" "
       "xmlns:svg=\"urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0\"><office:body>"
       "<office:text>" +
           body + "</office:text></office:body></office:document-content>",
       kZipDeflated}};
}

constexpr char kContainer[] =
    "<container xmlns=\"urn:oasis:names:tc:opendocument:xmlns:container\"><rootfiles><rootfile "
    "full-path=\"OEBPS/content.opf\" media-type=\"application/oebps-package+xml\"/></rootfiles>"
    "</container>";

std::vector<ZipFile> EpubFiles() {
  const auto page = [](const std::string& text) {
    return "<?xml version=\"1.0\"?><html xmlns=\"http://www.w3.org/1999/xhtml\"><head><title/>"
           "</head><body>" +
           text + "</body></html>";
  };
  return {
      {"mimetype", "application/epub+zip"},
      {"META-INF/container.xml", kContainer, kZipDeflated},
      {"OEBPS/content.opf",
       "<package xmlns=\"http://www.idpf.org/2007/opf\"><metadata xmlns:dc=\"http://purl.org/dc/"
       "elements/1.1/\"><dc:title>A Book</dc:title></metadata><manifest>"
       "<item id=\"two\" href=\"text/ch%20two.xhtml#top\" media-type=\"application/xhtml+xml\"/>"
       "<item id=\"one\" href=\"one.xhtml\" media-type=\"application/xhtml+xml\"/>"
       "<item id=\"cover\" href=\"cover.jpg\" media-type=\"image/jpeg\"/>"
       "<item id=\"gone\" href=\"gone.xhtml\" media-type=\"application/xhtml+xml\"/>"
       "<item id=\"blank\" href=\"blank.xhtml\" media-type=\"application/xhtml+xml\"/>"
       "</manifest><spine><itemref idref=\"cover\"/><itemref idref=\"one\"/><itemref "
       "idref=\"blank\"/><itemref idref=\"two\"/></spine></package>",
       kZipDeflated},
      {"OEBPS/text/ch two.xhtml", page("<h1>Two</h1><p>The end.</p>"), kZipDeflated},
      {"OEBPS/one.xhtml", page("<h1>One</h1><p>The <b>beginning</b>.</p>"), kZipDeflated},
      {"OEBPS/blank.xhtml", page("<img src=\"a\"/>"), kZipDeflated}};
}

class ZipDocumentTest : public DocumentFilesTest {
 protected:
  std::string TextOfZip(const std::string& name, const std::vector<ZipFile>& files) {
    return TextOf(Write(name, MakeZip(files)));
  }
  std::string TextOfDocx(const std::string& body) { return TextOfZip("a.docx", DocxFiles(body)); }
  std::string TextOfOdt(const std::string& body) { return TextOfZip("a.odt", OdtFiles(body)); }
};

TEST_F(ZipDocumentTest, DocxGivesWhatAReaderSees) {
  EXPECT_EQ(
      TextOfDocx(WordParagraph(TextRun("Chapter &amp; verse"), "<w:pStyle w:val=\"Heading1\"/>") +
                 WordParagraph(TextRun("One ") + "<w:r><w:tab/><w:br/><w:noBreakHyphen/></w:r>" +
                                   TextRun("café 😀"),
                               "<w:tabs><w:tab w:val=\"left\"/></w:tabs>") +
                 WordParagraph("") + "<w:sectPr/>"),
      "Chapter & verse\n\nOne \t\n-café 😀");
  // What was deleted or moved away, fields' instructions, and what stands in for newer markup.
  EXPECT_EQ(
      TextOfDocx(WordParagraph("<w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:ins>" +
                               TextRun("new") + "</w:ins><w:moveFrom>" + TextRun("moved") +
                               "</w:moveFrom><w:r><w:instrText>PAGE"
                               "</w:instrText></w:r><m:oMath><m:r><m:t>x=1</m:t></m:r></m:oMath>"
                               "<mc:AlternateContent><mc:Choice>" +
                               TextRun("!") + "</mc:Choice><mc:Fallback>" + TextRun("twice") +
                               "</mc:Fallback></mc:AlternateContent>")),
      "newx=1!");
}

TEST_F(ZipDocumentTest, DocxLeavesOutHiddenText) {
  const auto run = [](const std::string& vanish, const std::string& content) {
    return "<w:r><w:rPr>" + vanish + "</w:rPr>" + content + "</w:r>";
  };
  const std::string hidden = run("<w:b/><w:vanish/>", "<w:t>no</w:t><w:tab/><w:br/><w:t>no</w:t>");
  EXPECT_EQ(TextOfDocx(WordParagraph(TextRun("a") + hidden + TextRun("b"))), "ab");
  EXPECT_EQ(TextOfDocx(WordParagraph(run("<w:vanish w:val=\"true\"/>", "<w:t>no</w:t>") +
                                     run("<w:vanish w:val=\"0\"/>", "<w:t>yes</w:t>"))),
            "yes");
  // A paragraph whose mark is hidden is not hidden itself.
  EXPECT_EQ(TextOfDocx(WordParagraph(TextRun("yes"), "<w:rPr><w:vanish/></w:rPr>")), "yes");
  // A box belongs to a run, and may have hidden marks.
  const auto box = [](const std::string& paragraphs) {
    return "<w:txbxContent>" + paragraphs + "</w:txbxContent>";
  };
  EXPECT_EQ(TextOfDocx(WordParagraph(run("<w:vanish/>", box(WordParagraph(TextRun("no")))) +
                                     TextRun("yes"))),
            "yes");
  EXPECT_EQ(TextOfDocx(WordParagraph(run(
                "", box(WordParagraph(TextRun("in a box") + hidden, "<w:rPr><w:vanish/></w:rPr>")) +
                        "<w:t>yes</w:t>"))),
            "in a box\n\nyes");
}

TEST_F(ZipDocumentTest, DocxLeavesOutWhatAStyleHides) {
  const auto run = [](const std::string& properties, const std::string& text) {
    return "<w:r><w:rPr>" + properties + "</w:rPr><w:t>" + text + "</w:t></w:r>";
  };
  const auto paragraph_style = [](const std::string& name) {
    return "<w:pStyle w:val=\"" + name + "\"/>";
  };
  const std::string hidden = "<w:rStyle w:val=\"Hidden\"/>";
  auto files =
      DocxFiles(WordParagraph(run(hidden, "no") + run("<w:rStyle w:val=\"Based\"/>", "no") +
                              run("<w:rStyle w:val=\"Shown\"/>", "a") + run("", "b") +
                              run(hidden + "<w:vanish w:val=\"0\"/>", "c") +
                              run("<w:rStyle w:val=\"Round\"/>", "d")) +
                WordParagraph(run("", "no") + run(hidden, "both undo each other"),
                              paragraph_style("Secret")) +
                WordParagraph(run("", "its mark is hidden"), paragraph_style("Mark")));
  const auto style = [](const std::string& type, const std::string& id, const std::string& more) {
    return "<w:style w:type=\"" + type + "\" w:styleId=\"" + id + "\">" + more + "</w:style>";
  };
  const std::string vanish = "<w:rPr><w:vanish/></w:rPr>";
  std::string styles =
      style("character", "Hidden", vanish) +
      style("character", "Based", "<w:basedOn w:val=\"Hidden\"/><w:rPr><w:b/></w:rPr>") +
      style("character", "Shown",
            "<w:basedOn w:val=\"Hidden\"/><w:rPr><w:vanish w:val=\"false\"/></w:rPr>") +
      style("character", "Round", "<w:basedOn w:val=\"Round\"/>") +
      style("paragraph", "Secret", vanish) +
      style("paragraph", "Mark", "<w:pPr>" + vanish + "</w:pPr>");
  const auto with_styles = [&](const std::string& part, const std::string& content) {
    auto all = files;
    all.push_back(
        {part, std::string("<w:styles ") + kWord + ">" + content + "</w:styles>", kZipDeflated});
    return all;
  };
  const std::string kShown = "abcd\n\nboth undo each other\n\nits mark is hidden";
  EXPECT_EQ(TextOfZip("a.docx", with_styles("word/styles.xml", styles)), kShown);
  auto elsewhere = with_styles("word/looks.xml", styles);
  elsewhere.push_back({"word/_rels/document.xml.rels", Relation("styles", "looks.xml")});
  EXPECT_EQ(TextOfZip("a.docx", elsewhere), kShown);
  // A style for what names none.
  styles +=
      "<w:style w:type=\"paragraph\" w:default=\"1\" w:styleId=\"Normal\">" + vanish + "</w:style>";
  EXPECT_EQ(TextOfZip("a.docx", with_styles("word/styles.xml", styles)),
            "nonoc\n\nboth undo each other\n\nits mark is hidden");
  // Defaults of the document hide all that does not say otherwise itself.
  EXPECT_EQ(TextOfZip("a.docx", with_styles("word/styles.xml",
                                            "<w:docDefaults><w:rPrDefault>" + vanish +
                                                "</w:rPrDefault></w:docDefaults>" + styles)),
            "c");
  // Broken styles hide nothing.
  EXPECT_EQ(TextOfZip("a.docx", with_styles("word/styles.xml", styles + "<")),
            "nonoabcd\n\nnoboth undo each other\n\nits mark is hidden");
}

TEST_F(ZipDocumentTest, DocxGivesListsTablesAndBoxes) {
  const std::string item = "<w:numPr><w:ilvl w:val=\"0\"/><w:numId w:val=\"3\"/></w:numPr>";
  EXPECT_EQ(TextOfDocx(WordParagraph(TextRun("Buy:")) + WordParagraph(TextRun("milk"), item) +
                       WordParagraph(TextRun("bread"), item) +
                       WordParagraph(TextRun("Now."), "<w:numPr><w:numId w:val=\"0\"/></w:numPr>")),
            "Buy:\n\nmilk\nbread\n\nNow.");
  const std::string style = "<w:pStyle w:val=\"ListBullet\"/>";
  EXPECT_EQ(
      TextOfDocx(WordParagraph(TextRun("milk"), style) + WordParagraph(TextRun("bread"), style)),
      "milk\nbread");
  const auto cell = [](const std::string& text) { return "<w:tc>" + text + "</w:tc>"; };
  EXPECT_EQ(TextOfDocx("<w:tbl><w:tr>" + cell(WordParagraph(TextRun("Name"))) +
                       cell(WordParagraph(TextRun("Age")) + WordParagraph(TextRun("in years"))) +
                       "</w:tr><w:tr>" + cell(WordParagraph(TextRun("Ada"))) +
                       cell(WordParagraph(TextRun("36"))) + "</w:tr></w:tbl>" +
                       WordParagraph(TextRun("After"))),
            "Name\tAge in years\nAda\t36\n\nAfter");
  EXPECT_EQ(TextOfDocx(WordParagraph(TextRun("Around ") + "<w:r><w:txbxContent>" +
                                     WordParagraph(TextRun("a box")) + "</w:txbxContent></w:r>" +
                                     TextRun("it"))),
            "a box\n\nAround it");
}

TEST_F(ZipDocumentTest, DocxPutsNotesBehindTheParagraphThatRefersToThem) {
  auto files =
      DocxFiles(WordParagraph(TextRun("First") + "<w:r><w:footnoteReference w:id=\"2\"/></w:r>" +
                              TextRun(", then") + "<w:r><w:endnoteReference w:id=\"2\"/></w:r>") +
                WordParagraph(TextRun("Last")));
  files.push_back({"word/footnotes.xml",
                   std::string("<w:footnotes ") + kWord + "><w:footnote w:id=\"0\">" +
                       WordParagraph("") + "</w:footnote><w:footnote w:id=\"2\">" +
                       WordParagraph(TextRun("a footnote")) + WordParagraph(TextRun("of two")) +
                       "</w:footnote></w:footnotes>",
                   kZipDeflated});
  files.push_back({"word/notes_at_end.xml",
                   std::string("<w:endnotes ") + kWord + "><w:endnote w:id=\"2\">" +
                       WordParagraph(TextRun("an endnote")) + "</w:endnote></w:endnotes>",
                   kZipDeflated});
  files.push_back({"word/_rels/document.xml.rels", Relation("endnotes", "notes_at_end.xml")});
  EXPECT_EQ(TextOfZip("notes.docx", files),
            "First[1], then[2]\n\n[1] a footnote of two\n[2] an endnote\n\nLast");
}

TEST_F(ZipDocumentTest, DocxGivesANoteOnce) {
  const std::string reference = "<w:r><w:footnoteReference w:id=\"2\"/></w:r>";
  auto files = DocxFiles(
      WordParagraph(TextRun("A") + reference + reference) +
      WordParagraph(TextRun("B") + "<w:r><w:footnoteReference w:id=\"3\"/></w:r>" + reference));
  files.push_back({"word/footnotes.xml",
                   std::string("<w:footnotes ") + kWord + "><w:footnote w:id=\"2\">" +
                       WordParagraph(TextRun("two")) + "</w:footnote><w:footnote w:id=\"3\">" +
                       WordParagraph(TextRun("three")) + "</w:footnote></w:footnotes>",
                   kZipDeflated});
  EXPECT_EQ(TextOfZip("notes.docx", files), "A[1][1]\n\n[1] two\n\nB[2][1]\n\n[2] three");
}

TEST_F(ZipDocumentTest, DocxTakesItsTitleFromThePropertiesOrTheFirstParagraph) {
  const std::string body = WordParagraph("") +
                           WordParagraph(TextRun("Styled"), "<w:pStyle w:val=\"Title\"/>") +
                           WordParagraph(TextRun("Later"), "<w:pStyle w:val=\"Title\"/>");
  auto files = DocxFiles(body);
  EXPECT_EQ(Open(Write("a.docx", MakeZip(files)))->title, "Styled");
  files.push_back({"docProps/core.xml", kProperties});
  EXPECT_EQ(Open(Write("a.docx", MakeZip(files)))->title, "The title & more");
  files.back().bytes = "broken";
  EXPECT_EQ(Open(Write("a.docx", MakeZip(files)))->title, "Styled");
  EXPECT_EQ(
      Open(Write("Minutes of May.docx", MakeZip(DocxFiles(WordParagraph(TextRun("x"))))))->title,
      "Minutes of May");
}

TEST_F(ZipDocumentTest, DocxFindsItsMainPartByItsRelations) {
  auto files = DocxFiles(WordParagraph(TextRun("Elsewhere")));
  files[1].bytes = Relation("officeDocument", "/word/document2.xml");
  files[2].name = "word/document2.xml";
  EXPECT_EQ(TextOfZip("a.docx", files), "Elsewhere");
  EXPECT_EQ(TextOfZip("no-extension", files), "Elsewhere");
}

TEST_F(ZipDocumentTest, OdtGivesWhatAReaderSees) {
  EXPECT_EQ(
      TextOfOdt("<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
                "<text:h>Heading</text:h><text:p>One\n   <text:span>two</text:span><text:s "
                "text:c=\"3\"/><text:tab/>three<text:line-break/>four<office:annotation><text:p>"
                "a comment</text:p></office:annotation></text:p><text:p/>"
                "<text:list><text:list-item><text:p>a</text:p></text:list-item><text:list-item>"
                "<text:p>b</text:p></text:list-item></text:list>"
                "<table:table><table:table-row><table:table-cell><text:p>1</text:p>"
                "</table:table-cell><table:table-cell><text:p>2</text:p></table:table-cell>"
                "</table:table-row><table:table-row><table:table-cell><text:p>3</text:p>"
                "</table:table-cell></table:table-row></table:table>"
                "<text:p>Noted<text:note><text:note-citation>7</text:note-citation><text:note-body>"
                "<text:p>below</text:p></text:note-body></text:note>.<draw:frame><draw:text-box>"
                "<text:p>Box</text:p></draw:text-box><svg:desc>picture</svg:desc></draw:frame>"
                "</text:p>"),
      "Heading\n\nOne two   \tthree\nfour\n\na\nb\n\n1\t2\n3\n\nBox\n\n[7] below\n\nNoted[7].");
}

TEST_F(ZipDocumentTest, OdtLeavesOutWhatAStyleHides) {
  constexpr char kStyle[] = "xmlns:style=\"urn:oasis:names:tc:opendocument:xmlns:style:1.0\"";
  const auto style = [](const std::string& family, const std::string& name,
                        const std::string& display, const std::string& parent = "") {
    return "<style:style style:family=\"" + family + "\" style:name=\"" + name +
           "\" style:parent-style-name=\"" + parent + "\"><style:text-properties " +
           (display.empty() ? "" : "text:display=\"" + display + "\"") + "/></style:style>";
  };
  const auto span = [](const std::string& name, const std::string& content) {
    return "<text:span text:style-name=\"" + name + "\">" + content + "</text:span>";
  };
  auto files = OdtFiles(
      "<text:p>a" +
      span("T1", "no<text:tab/><text:s text:c=\"3\"/>" + span("T3", "b") + "no" +
                     span("", "no<text:line-break/>") +
                     "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>"
                     "no</text:p></text:note-body></text:note><draw:frame><draw:text-box><text:p>"
                     "no</text:p></draw:text-box></draw:frame>") +
      span("T2", "no") + span("T4", "c") + "</text:p><text:p text:style-name=\"P1\">no" +
      span("T3", "d") + "</text:p><text:p text:style-name=\"P2\">e</text:p>" +
      "<text:section text:display=\"none\"><text:p>no</text:p></text:section>" +
      "<text:section text:display=\"true\"><text:p>f</text:p></text:section>");
  std::string& content = files[1].bytes;
  const std::string body = "<office:body>";
  content.insert(content.find(body),
                 std::string("<office:automatic-styles ") + kStyle + ">" +
                     style("text", "T1", "none") + style("text", "T2", "", "Hidden") +
                     style("text", "T3", "true") + style("text", "T4", "condition") +
                     style("paragraph", "P1", "", "Secret") + style("paragraph", "P2", "") +
                     "</office:automatic-styles>");
  files.push_back(
      {"styles.xml",
       std::string("<office:document-styles ") + kStyle +
           " xmlns:office=\"urn:oasis:names:tc:opendocument:xmlns:office:1.0\" "
           "xmlns:text=\"urn:oasis:names:tc:opendocument:xmlns:text:1.0\"><office:styles>" +
           style("text", "Hidden", "none") + style("paragraph", "Secret", "none") +
           "</office:styles><office:automatic-styles>" + style("paragraph", "P2", "none") +
           "</office:automatic-styles></office:document-styles>",
       kZipDeflated});
  EXPECT_EQ(TextOfZip("a.odt", files), "abc\n\nd\n\ne\n\nf");
}

TEST_F(ZipDocumentTest, OdtLeavesOutWhatAFieldHides) {
  const auto field = [](const std::string& is_hidden) {
    return "<text:hidden-paragraph text:condition=\"x\" text:is-hidden=\"" + is_hidden + "\"/>";
  };
  EXPECT_EQ(
      TextOfOdt("<text:p>no<text:span>no" + field("true") + "no</text:span>no</text:p>" +
                "<text:p>a" + field("false") + "</text:p><text:p>b<draw:frame><draw:text-box>" +
                "<text:p>no" + field("true") + "</text:p></draw:text-box></draw:frame>c" +
                "</text:p><text:section text:display=\"condition\" text:is-hidden=\"true\">" +
                "<text:p>no</text:p></text:section>"
                "<text:section text:display=\"condition\" text:is-hidden=\"false\">" +
                "<text:p>d</text:p></text:section>"),
      "a\n\nbc\n\nd");
}

TEST_F(ZipDocumentTest, OdtTakesItsTitleFromTheProperties) {
  auto files = OdtFiles("<text:p>x</text:p>");
  files.push_back({"meta.xml", kProperties});
  EXPECT_EQ(Open(Write("a.odt", MakeZip(files)))->title, "The title & more");
}

TEST_F(ZipDocumentTest, EpubGivesItsPagesInReadingOrder) {
  const auto path = Write("book.epub", MakeZip(EpubFiles()));
  EXPECT_EQ(TextOf(path), "One\n\nThe beginning.\n\nTwo\n\nThe end.");
  const auto document = Open(path);
  EXPECT_EQ(document->title, "A Book");
  EXPECT_EQ(document->source, path.native());
  ASSERT_TRUE(ReadText(*document).ok());
  EXPECT_EQ(document->warning, "");
}

TEST_F(ZipDocumentTest, EpubGivesAPageOnce) {
  auto files = EpubFiles();
  std::string& package = files[2].bytes;
  const std::string one = "<itemref idref=\"one\"/>";
  std::string many;
  for (int i = 0; i < 100000; ++i) many += one;
  package.replace(package.find(one), one.size(), many);
  // Nor under another name.
  const std::string item = "<item id=\"cover\"";
  package.insert(package.find(item),
                 "<item id=\"again\" href=\"text/../one.xhtml#x\" media-type=\"text/html\"/>");
  const std::string blank = "<itemref idref=\"blank\"/>";
  package.insert(package.find(blank), "<itemref idref=\"again\"/>");
  ReadLimits limits;
  limits.max_zip_seconds = 10;
  EXPECT_EQ(TextOf(Write("book.epub", MakeZip(files)), limits),
            "One\n\nThe beginning.\n\nTwo\n\nThe end.");
}

std::string Nested(const std::string& start, const std::string& inner, const std::string& end) {
  constexpr int kDepth = 100000;
  std::string starts, ends;
  for (int i = 0; i < kDepth; ++i) {
    starts += start;
    ends += end;
  }
  return starts + inner + ends;
}

TEST_F(ZipDocumentTest, NestingTakesTimeByTheByte) {
  ReadLimits limits;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  limits.max_zip_seconds = 60;
#else
  limits.max_zip_seconds = 5;
#endif
  const auto letters = [&](const char* name, const std::vector<ZipFile>& files) {
    const std::string text = TextOf(Write(name, MakeZip(files)), limits);
    return std::count(text.begin(), text.end(), 'x');
  };
  const std::string word = WordParagraph(TextRun("x"));
  EXPECT_EQ(letters("a.docx",
                    DocxFiles(Nested("<w:tbl><w:tr><w:tc>" + word, "", "</w:tc></w:tr></w:tbl>"))),
            100000);
  EXPECT_EQ(letters("a.docx", DocxFiles(Nested("<w:p>" + TextRun("x"), "", "</w:p>"))), 100000);
  const std::string paragraph = "<text:p>x</text:p>";
  EXPECT_EQ(letters("a.odt", OdtFiles(Nested(
                                 "<table:table><table:table-row><table:table-cell>" + paragraph, "",
                                 "</table:table-cell></table:table-row>"
                                 "</table:table>"))),
            100000);
  EXPECT_EQ(
      letters("a.odt", OdtFiles("<text:p>" +
                                Nested("<text:note-body>" + paragraph, "", "</text:note-body>") +
                                "</text:p>")),
      100000);
  auto book = EpubFiles();
  book[3].bytes =
      "<?xml version=\"1.0\"?><html><body>" + Nested("<div>x", "", "</div>") + "</body></html>";
  EXPECT_EQ(letters("a.epub", book), 100000);
}

TEST_F(ZipDocumentTest, EpubSaysWhichPagesAreMissing) {
  auto files = EpubFiles();
  files.erase(files.begin() + 4);
  const auto document = Open(Write("book.epub", MakeZip(files)));
  EXPECT_EQ(*ReadText(*document), "Two\n\nThe end.");
  EXPECT_EQ(document->warning, "1 of 3 pages are missing in the book");
}

TEST_F(ZipDocumentTest, ReadsXmlInEncodingsOfOneByte) {
  const auto text = [&](const std::string& encoding, const std::string& bytes) {
    auto files = DocxFiles(WordParagraph(TextRun(bytes)));
    std::string& xml = files[2].bytes;
    xml.replace(xml.find("UTF-8"), 5, encoding);
    return TextOf(Write("a.docx", MakeZip(files)));
  };
  EXPECT_EQ(text("windows-1252", "caf\xE9 \x80 \x96"), "café € –");
  EXPECT_EQ(text("KOI8-R", "\xF0\xD2\xC9"), "При");
  EXPECT_EQ(text("ISO-8859-1", "caf\xE9"), "café");
  auto files = DocxFiles(WordParagraph(TextRun("x")));
  files[2].bytes.replace(files[2].bytes.find("UTF-8"), 5, "klingon");
  EXPECT_THAT(OpenError(Write("a.docx", MakeZip(files))),
              IsStatus(absl::StatusCode::kDataLoss, "unknown encoding"));
}

TEST_F(ZipDocumentTest, EpubSaysWhichPagesAreDrawings) {
  auto files = EpubFiles();
  std::string& package = files[2].bytes;
  const std::string jpeg = "cover.jpg\" media-type=\"image/jpeg";
  package.replace(package.find(jpeg), jpeg.size(), "cover.svg\" media-type=\"image/svg+xml");
  const auto document = Open(Write("book.epub", MakeZip(files)));
  EXPECT_EQ(*ReadText(*document), "One\n\nThe beginning.\n\nTwo\n\nThe end.");
  EXPECT_EQ(document->warning, "1 page is a drawing (SVG), whose text is not read");
  files.erase(files.begin() + 4);
  const auto two = Open(Write("book.epub", MakeZip(files)));
  ASSERT_TRUE(ReadText(*two).ok());
  EXPECT_EQ(two->warning,
            "1 of 3 pages are missing in the book; 1 page is a drawing (SVG), whose text is not "
            "read");
}

TEST_F(ZipDocumentTest, EpubTakesItsTitleFromAPackageOfAnySize) {
  auto files = EpubFiles();
  std::string& package = files[2].bytes;
  package.insert(package.find("<dc:title>"), "<!--" + std::string(size_t{2} << 20, 'x') + "-->");
  EXPECT_EQ(Open(Write("book.epub", MakeZip(files)))->title, "A Book");
}

TEST_F(ZipDocumentTest, EpubNamesTheByteOfAPageThatIsNoText) {
  auto files = EpubFiles();
  files.erase(files.begin() + 3);  // the other page with text
  files[3].bytes = "<p>caf\xE9</p>";
  EXPECT_THAT(OpenError(Write("a.epub", MakeZip(files))),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "broken EPUB: OEBPS/one.xhtml: not UTF-8: byte 0xE9 at byte offset 6, and "
                       "the page declares no other encoding: save the book again"));
  files[3].bytes = std::string("<p>\0</p>", 8);
  EXPECT_THAT(OpenError(Write("a.epub", MakeZip(files))),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "OEBPS/one.xhtml: not text: NUL byte at byte offset 3"));
}

TEST_F(ZipDocumentTest, EpubGivesTheOtherPagesOfABookWithOneThatCannotBeRead) {
  const auto expect_rest = [&](const std::string& book, const std::string& warning) {
    const auto document = Open(Write("book.epub", book));
    EXPECT_EQ(*ReadText(*document), "Two\n\nThe end.");
    EXPECT_THAT(document->warning, ::testing::HasSubstr(warning));
  };
  auto files = EpubFiles();
  files[4].bytes = "<p>caf\xE9</p>";
  expect_rest(MakeZip(files),
              "1 of 3 pages cannot be read, the first: broken EPUB: OEBPS/one.xhtml: not UTF-8: "
              "byte 0xE9 at byte offset 6");
  // Damaged where it lies: the page is stored as it is, so that its text can be found.
  files = EpubFiles();
  files[4].method = 0;  // not packed
  std::string book = MakeZip(files);
  const size_t at = book.find("beginning");
  ASSERT_NE(at, std::string::npos);
  book[at] = 'B';
  expect_rest(book, "1 of 3 pages cannot be read, the first: broken EPUB: OEBPS/one.xhtml: ");
}

TEST_F(ZipDocumentTest, NamesOtherArchives) {
  const std::pair<std::vector<ZipFile>, std::string_view> kArchives[] = {
      {{{"a.txt", "text"}}, kZipKind},
      {{}, kZipKind},
      {{{"_rels/.rels", Relation("officeDocument", "xl/workbook.xml")}, {"xl/workbook.xml", ""}},
       kSpreadsheetKind},
      {{{"ppt/presentation.xml", ""}}, kPresentationKind},
      {{{"mimetype", "application/vnd.oasis.opendocument.spreadsheet"}}, kSpreadsheetKind},
      {{{"META-INF/MANIFEST.MF", ""}}, "Java archive"},
  };
  for (const auto& [files, kind] : kArchives) {
    for (const char* name : {"a.zip", "a.docx", "a"}) {
      const absl::Status status = OpenError(Write(name, MakeZip(files)));
      EXPECT_THAT(status, IsStatus(absl::StatusCode::kInvalidArgument, kind));
      EXPECT_EQ(KindOfError(status), kind);
    }
  }
}

TEST_F(ZipDocumentTest, OneWithoutTextIsOfAKindOfItsOwn) {
  auto book = EpubFiles();
  book[3].bytes = book[4].bytes = book[5].bytes;
  const std::pair<std::vector<ZipFile>, std::string_view> kFiles[] = {
      {DocxFiles(WordParagraph("")), "DOCX without text"},
      {OdtFiles("<text:p/>"), "ODT without text"},
      {book, "EPUB without text"}};
  for (const auto& [files, kind] : kFiles) {
    for (const char* name : {"a.docx", "a.odt", "a.epub", "a"}) {
      const absl::Status status = OpenError(Write(name, MakeZip(files)));
      EXPECT_THAT(status, IsStatus(absl::StatusCode::kInvalidArgument, kind));
      EXPECT_EQ(KindOfError(status), kind);
    }
  }
  // What is missing may have had text.
  book.erase(book.begin() + 3, book.end());
  const absl::Status status = OpenError(Write("a.epub", MakeZip(book)));
  EXPECT_THAT(status, IsStatus(absl::StatusCode::kDataLoss, "3 of 3 pages are missing"));
  EXPECT_EQ(KindOfError(status), "");
}

TEST_F(ZipDocumentTest, RefusesDamagedDocuments) {
  const std::string docx = MakeZip(DocxFiles(WordParagraph(TextRun("text"))));
  const std::string cut = docx.substr(0, docx.size() - 30);
  EXPECT_THAT(OpenError(Write("cut.docx", cut)),
              IsStatus(absl::StatusCode::kDataLoss,
                       "cut.docx: truncated or damaged zip archive: no end of a zip archive"));
  // Only the name told that it was a document.
  EXPECT_EQ(KindOfError(OpenError(Write("cut.bin", cut))), kZipKind);
  EXPECT_THAT(
      OpenError(Write("a.docx", MakeZip(DocxFiles("<w:p>")))),
      IsStatus(absl::StatusCode::kDataLoss, "a.docx: broken XML: word/document.xml: line 1"));
  auto no_page = EpubFiles();
  no_page[1].bytes = "<container/>";
  EXPECT_THAT(OpenError(Write("a.epub", MakeZip(no_page))),
              IsStatus(absl::StatusCode::kDataLoss, "a.epub: broken EPUB: no package document"));
  EXPECT_THAT(OpenError(Write("a.odt", MakeZip({OdtFiles("")[0]}))),
              IsStatus(absl::StatusCode::kDataLoss, "a.odt: broken ODT: no part content.xml"));
  EXPECT_THAT(OpenError(Write("none.docx", MakeZip(DocxFiles(WordParagraph(""))))),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "none.docx: empty: nothing to store (DOCX without text)"));
  auto encrypted = OdtFiles("<text:p>x</text:p>");
  encrypted.push_back({"META-INF/manifest.xml", "<manifest:encryption-data>"});
  EXPECT_THAT(OpenError(Write("a.odt", MakeZip(encrypted))),
              IsStatus(absl::StatusCode::kInvalidArgument, "a.odt: encrypted ODT"));
}

TEST_F(ZipDocumentTest, RefusesEntitiesOfTheirOwn) {
  auto files = DocxFiles(WordParagraph(TextRun("&lol;")));
  files[2].bytes = "<!DOCTYPE x [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;\">]>" +
                   files[2].bytes.substr(files[2].bytes.find("?>") + 2);
  EXPECT_THAT(OpenError(Write("lol.docx", MakeZip(files))),
              IsStatus(absl::StatusCode::kDataLoss, "it declares entities of its own"));
}

TEST_F(ZipDocumentTest, StopsAtItsLimits) {
  const std::string docx = MakeZip(
      DocxFiles(WordParagraph(TextRun(std::string(200000, 'a'))) + WordParagraph(TextRun("b"))));
  ReadLimits limits;
  limits.max_zip_part_bytes = 1000;
  EXPECT_THAT(OpenError(Write("a.docx", docx), limits),
              IsStatus(absl::StatusCode::kResourceExhausted, "member word/document.xml has 200"));
  limits = {};
  limits.max_zip_text_bytes = 200000;
  const auto document = Open(Write("a.docx", docx), limits);
  EXPECT_THAT(ReadText(*document).status(),
              IsStatus(absl::StatusCode::kResourceExhausted, "more than 200000 bytes of text"));
  limits = {};
  limits.max_zip_bytes = docx.size() - 1;
  EXPECT_THAT(OpenError(Write("a.docx", docx), limits),
              IsStatus(absl::StatusCode::kResourceExhausted, "a.docx: "));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // One paragraph that does not fit into memory: some 64 kB of archive.
  limits = {};
  limits.max_zip_memory_bytes = size_t{24} << 20;
  EXPECT_THAT(OpenError(Write("bomb.docx", MakeZip(DocxFiles(WordParagraph(
                                               TextRun(std::string(size_t{64} << 20, 'a')))))),
                        limits),
              IsStatus(absl::StatusCode::kResourceExhausted, "bytes of memory to be read"));
#endif
}

TEST_F(ZipDocumentTest, NoticesAFileThatChanges) {
  const std::string docx = MakeZip(DocxFiles(WordParagraph(TextRun("text"))));
  const auto path = Write("a.docx", docx);
  const auto document = Open(path);
  Write("a.docx", docx + "x");
  EXPECT_FALSE(ReadText(*document).ok());
}

}  // namespace
}  // namespace fovea::documents
