#include "documents/html.h"

#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

class HtmlTest : public DocumentFilesTest {};

std::string Text(std::string_view html) {
  const auto page = ExtractHtml(html, ReadLimits());
  EXPECT_TRUE(page.ok()) << page.status();
  return page.ok() ? page->text : "(error)";
}

TEST_F(HtmlTest, GivesTheReadableTextOfAPage) {
  const auto path = Write("page.html", R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<title>Caf&eacute; &amp;
 Bar</title><style>p { color: red }</style><script>if (1 < 2) alert("<p>no</p>");</script></head>
<body><!-- not <b>this</b> -->
<h1>Menu</h1>
<p>Fish   &amp; <b>chips</b>,
<i>5&nbsp;&euro;</i> &#x1F600;</p><p>Second</p>
<div>One<div>Two</div>Three<br>Four<br><br>Five</div>
<ul><li>a</li><li>b<ul><li>b1</li></ul></li></ul>
<table><caption>Prices</caption><tr><th>Dish</th><th>Price</th></tr>
<tr><td>Soup</td><td>3</td></tr></table>
<pre>
  keep
    this  </pre>
<noscript>no</noscript><p hidden>no</p><select><option>no</option></select>
<svg><title>no</title><text>no</text></svg>
End<script>no</script>.
</body></html>)");
  const auto document = Open(path);
  EXPECT_EQ(document->title, "Café & Bar");
  EXPECT_EQ(document->source, path.native());
  EXPECT_EQ(TextOf(path),
            "Menu\n\n"
            "Fish & chips, 5 € 😀\n\n"
            "Second\n\n"
            "One\nTwo\nThree\nFour\n\nFive\n\n"
            "a\nb\nb1\n\n"
            "Prices\nDish\tPrice\nSoup\t3\n\n"
            "  keep\n    this\n\n"
            "End.");
}

TEST_F(HtmlTest, LabelsOfButtonsAreText) {
  EXPECT_EQ(Text("<h2><button>When is it open?</button></h2><div>From <b>nine</b> on.</div>"),
            "When is it open?\n\nFrom nine on.");
  EXPECT_EQ(Text("one<button>two</button><button><p>three</p></button>four"),
            "one two\n\nthree\n\nfour");
  EXPECT_EQ(Text("(<button>a</button>)"), "( a )");
}

TEST_F(HtmlTest, WhatIsLeftOutOfALineStandsBetweenWords) {
  for (const char* left_out :
       {"<select><option>no</select>", "<input value=no>", "<textarea>no</textarea>",
        "<img alt=no src=x>", "<svg><text>no</text></svg>", "<iframe>no</iframe>",
        "<object>no</object>", "<canvas>no</canvas>", "<video>no</video>", "<audio>no</audio>"}) {
    EXPECT_EQ(Text(std::string("<a>link</a>") + left_out + "<label>lab</label>"), "link lab")
        << left_out;
    // Also deep within other elements.
    std::string page;
    for (int i = 0; i < 300; ++i) page += "<div>";
    EXPECT_EQ(Text(page + "<span>link" + left_out + "lab"), "link lab") << left_out;
  }
  // What nobody sees does not.
  for (const char* unseen :
       {"<script>no</script>", "<input type=HIDDEN>", "<template>no</template>",
        "<span hidden>no</span>", "<datalist><option>no</datalist>", "<wbr>"}) {
    EXPECT_EQ(Text(std::string("li") + unseen + "nk"), "link") << unseen;
  }
}

TEST_F(HtmlTest, LeavesOutWhatAStyleHides) {
  for (const char* style :
       {"display:none", " color:red ; DISPLAY : None !important ; x", "display:block;display:none",
        "display:none !important;display:block"}) {
    EXPECT_EQ(Text(std::string("a <p style='") + style + "'>no<b>no</b></p>b"), "a b") << style;
  }
  for (const char* style : {"", "display:block", "display:none;display:flex", "x-display:none",
                            "content:'display:none'", "display:none-such"}) {
    EXPECT_EQ(Text(std::string("<p style=\"") + style + "\">yes</p>"), "yes") << style;
  }
  // A page that its script shows, and a formula beside its picture.
  EXPECT_EQ(Text("<body style='display:none'>yes"), "yes");
  EXPECT_EQ(Text("<span style='display: none'> <math><mi>x</mi></math></span><img>"), "x");
}

TEST_F(HtmlTest, ReadsPagesWithoutTheirFrame) {
  EXPECT_EQ(Text("just <em>text</em> & more &lt;b&gt; &unknown; &#0;"),
            "just text & more <b> &unknown; \uFFFD");
  EXPECT_EQ(Text("<p>one<p>two</b></i>three<td>four"), "one\n\ntwothreefour");
  EXPECT_EQ(Text("<p>cut off <b att"), "cut off");
  EXPECT_EQ(Text("<xmp><b>raw</b></xmp>"), "<b>raw</b>");
  EXPECT_EQ(Text("hy\u00ADphen\u200Bate"), "hyphenate");
  EXPECT_EQ(Text("<table><tr><td>a<td><td>c</table>"), "a\t\tc");
}

TEST_F(HtmlTest, TakesTheTitleFromTheFirstHeadingOrTheFileName) {
  EXPECT_EQ(Open(Write("page.htm", "<h1>First <i>one</i></h1><h1>Second</h1>"))->title,
            "First one");
  EXPECT_EQ(Open(Write("page.htm", "<title> </title>text"))->title, "page");
}

TEST_F(HtmlTest, RefusesPagesWithoutText) {
  EXPECT_THAT(OpenError(Write("a.html", "")),
              IsStatus(absl::StatusCode::kInvalidArgument, "a.html: empty: nothing to store"));
  EXPECT_THAT(OpenError(Write("a.html", "<title>t</title><img src=x><script>x</script>&nbsp;")),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "empty: nothing to store (HTML page without text)"));
}

TEST_F(HtmlTest, RefusesWhatIsNotUtf8) {
  EXPECT_THAT(OpenError(Write("a.html", "<p>caf\xE9</p>")),
              IsStatus(absl::StatusCode::kInvalidArgument, "byte 0xE9 at byte offset 6"));
  EXPECT_THAT(OpenError(Write("a.html", std::string_view("<p>\0</p>", 8))),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "NUL byte at byte offset 3: want UTF-8 text, Markdown"));
  EXPECT_THAT(OpenError(Write("a.html", std::string_view("<\0p\0>\0x\0", 8))),
              IsStatus(absl::StatusCode::kInvalidArgument, "it seems to be UTF-16"));
}

TEST_F(HtmlTest, SurvivesDeepNesting) {
  std::string html;
  for (int i = 0; i < 20000; ++i) html += "<div>";
  EXPECT_EQ(Text(html + "deep"), "deep");
  html.clear();
  for (int i = 0; i < 20000; ++i) html += "<b>";
  EXPECT_EQ(Text(html + "<p>deep<p>er"), "deep\n\ner");
}

TEST_F(HtmlTest, ManyElementsOfOneLevelAreNoProblem) {
  std::string html;
  for (int i = 0; i < 50000; ++i) html += "<p>x";
  EXPECT_EQ(Text(html).size(), 50000u * 3 - 2);
}

TEST_F(HtmlTest, StopsAtItsLimits) {
  std::string html;
  for (int i = 0; i < 20000; ++i) html += "<p>x</p>";
  ReadLimits limits;
  limits.max_html_tree_bytes = 1 << 20;
  const auto path = Write("big.html", html);
  EXPECT_THAT(OpenError(path, limits), IsStatus(absl::StatusCode::kResourceExhausted,
                                                "big.html: the page's 160000 bytes of markup"));
  limits = ReadLimits();
  limits.max_html_parse_seconds = 0;
  EXPECT_THAT(OpenError(path, limits), IsStatus(absl::StatusCode::kResourceExhausted, "big.html"));
  limits = ReadLimits();
  limits.max_html_bytes = 159999;
  EXPECT_THAT(OpenError(path, limits),
              IsStatus(absl::StatusCode::kResourceExhausted,
                       "big.html: 160000 bytes, and a page of HTML may have at most 159999"));
  EXPECT_EQ(TextOf(path).size(), 20000u * 3 - 2);
}

}  // namespace
}  // namespace fovea::documents
