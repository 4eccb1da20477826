#include "documents/xhtml.h"

#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

TEST(XhtmlToHtmlTest, GivesEmptyElementsAnEnd) {
  EXPECT_EQ(XhtmlToHtml("<title/><p class='a>b' />x<br/><a id=\"1\"/>y<img src='/a'/>"),
            "<title></title><p class='a>b' ></p>x<br/><a id=\"1\"></a>y<img src='/a'/>");
}

TEST(XhtmlToHtmlTest, TurnsCdataIntoTextAndDropsCommentsAndInstructions) {
  EXPECT_EQ(XhtmlToHtml("<?xml version='1.0'?>a<!-- <b/> --><![CDATA[<&>]]>c<?x <d/>?>e"),
            "a&lt;&amp;>ce");
}

TEST(XhtmlToHtmlTest, DropsTheDeclarationsOfADocumentType) {
  EXPECT_EQ(XhtmlToHtml("<!DOCTYPE html><p>a</p>"), "<!DOCTYPE html><p>a</p>");
  EXPECT_EQ(XhtmlToHtml("<!DOCTYPE html [<!ENTITY c \"d\"> <!ELEMENT p ANY>] ><p>&c;</p>"),
            "<!DOCTYPE html ><p>&c;</p>");
}

TEST(XhtmlToHtmlTest, TakesWhatIsCutOff) {
  for (const char* page : {"<", "<a", "<a b='", "<!--", "<?", "<![CDATA[", "<![CDATA[x",
                           "<!DOCTYPE", "<!DOCTYPE a [", "<!DOCTYPE a [b]", "</", "</>"}) {
    XhtmlToHtml(page);
  }
  EXPECT_EQ(XhtmlToHtml("x<![CDATA[y"), "xy");
  EXPECT_EQ(XhtmlToHtml("</>"), "</>");
}

class XhtmlFileTest : public DocumentFilesTest {};

TEST_F(XhtmlFileTest, IsReadWholeWhateverItsEmptyElements) {
  EXPECT_EQ(TextOf(Write("a.xhtml",
                         "<?xml version=\"1.0\"?><html xmlns=\"http://www.w3.org/1999/"
                         "xhtml\"><head><title/><script src=\"a.js\"/></head><body>"
                         "<p>All<a id=\"1\"/> of it</p></body></html>")),
            "All of it");
}

}  // namespace
}  // namespace fovea::documents
