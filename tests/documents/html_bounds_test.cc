#include "documents/html_bounds.h"

#include <gumbo.h>

#include <algorithm>
#include <random>

#include "documents/html.h"
#include "documents/html_scanner.h"
#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

constexpr int kMany = 100000;

std::string Repeat(std::string_view text, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += text;
  return all;
}

std::string Numbered(std::string_view before, std::string_view after, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) {
    all += before;
    all += std::to_string(i);
    all += after;
  }
  return all;
}

TEST(HtmlBoundsTest, LeavesPagesWithinTheBoundsAlone) {
  for (const std::string& page :
       {std::string("<!DOCTYPE html><html><body><div><p>one<p>two</div></body></html>"),
        Repeat("<div>", 200) + "x" + Repeat("</div>", 200), Repeat("<div><b>x</b></div>", 1000),
        Repeat("<p>x", 1000), "<ul>" + Repeat("<li>x", 1000),
        "<dl>" + Repeat("<dt>x<dd>y", 1000) + "</dl>",
        "<table>" + Repeat("<tr><td>x<td><div>y", 1000) + "</table>",
        "<select>" + Repeat("<option>x", 1000) + "</select>", Repeat("<br><hr><img src=a>", 1000),
        Repeat("<h2>x<h3>y", 1000), "<script>" + Repeat("<div>", 1000) + "</script>",
        "<!--" + Repeat("<div>", 1000) + "-->", Repeat("<svg><path d=''/><g></g></svg>", 1000),
        Repeat("</div></p></span>", 1000)}) {
    EXPECT_FALSE(BoundMarkup(page).has_value()) << page.substr(0, 60);
  }
}

// What a parser's time is quadratic in: some of these took minutes.
TEST(HtmlBoundsTest, ReadsAHundredThousandOfAnythingInLittleTime) {
  const std::string numbered_attributes = "<p" + Numbered(" a", "=1", kMany) + ">end";
  const std::string pages[] = {
      Repeat("<div>", kMany) + "end" + Repeat("</div>", kMany),
      Repeat("<div>x", kMany) + "end",
      Repeat("<b>", kMany) + "end",
      Repeat("<b>", kMany) + "<div>end</div>" + Repeat("</b>", kMany),
      Repeat("<a>x", kMany) + "end",
      Repeat("<p><b>x", kMany) + "end",
      Repeat("<table>", kMany) + "end",
      Repeat("<table><tr><td>x", kMany) + "end",
      Repeat("<li>x", kMany) + "end",
      Repeat("<li><dd>x", kMany) + "end",
      Repeat("<ul><li>x", kMany) + "end",
      Repeat("<p>x", kMany) + "end",
      Repeat("<pre>x", kMany) + "end",
      Repeat("<rt>x", kMany) + "end",
      Repeat("<blockquote>x", kMany) + "end",
      Repeat("<span>", kMany / 2) + Repeat("</i>", kMany / 2) + "end",
      Repeat("<div>", kMany / 2) + Repeat("</span>", kMany / 2) + "end",
      Repeat("<math><td>", kMany / 2) + Repeat("</x>", kMany / 2) + "<p>end",
      Numbered("<font color=c", "><p>x", kMany) + "end",
      Numbered("<html a", "=1>", kMany) + Numbered("<body a", "=1>", kMany) + "end",
      numbered_attributes,
  };
  ReadLimits limits;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  limits.max_html_parse_seconds = 40;
#else
  limits.max_html_parse_seconds = 4;
#endif
  for (const std::string& page : pages) {
    const auto text = ExtractHtml(page, limits);
    ASSERT_TRUE(text.ok()) << page.substr(0, 60) << ": " << text.status();
    EXPECT_THAT(text->text, ::testing::EndsWith("end")) << page.substr(0, 60);
    const auto count = [](std::string_view all) { return std::count(all.begin(), all.end(), 'x'); };
    std::string without_tags;
    HtmlScanner scanner(page);
    for (auto piece = scanner.Next(false); !piece.text.empty(); piece = scanner.Next(false)) {
      if (!piece.tag.has_value()) without_tags += piece.text;
    }
    EXPECT_EQ(count(text->text), count(without_tags)) << page.substr(0, 60);
  }
}

TEST(HtmlBoundsTest, TheInnermostElementsBecomeLines) {
  const MarkupBounds bounds{.max_depth = 2};
  EXPECT_EQ(BoundMarkup("<div><ul><li>a</li><li>b <span>c</span></li></ul>d</div>e", bounds),
            "<div><ul><br>a<br><br>b c<br></ul>d</div>e");
  // What has no text of the page keeps none.
  EXPECT_EQ(BoundMarkup("<div><div><object>no<p>no</object>a<div hidden>no<div>no</div>no</div>b"
                        "<svg><title>no</title></svg><script><div></script>c</div></div>d",
                        bounds),
            "<div><div> ab <script><div></script>c</div></div>d");
  // Its end is that of what is around it, where it has none of its own.
  EXPECT_EQ(BoundMarkup("<div><div><object>no</div>a</div>b", bounds), "<div><div> </div>a</div>b");
  EXPECT_EQ(BoundMarkup("<div><div><button>yes<b>!</b></button>a</div>b", bounds),
            "<div><div> yes! a</div>b");
}

TEST(HtmlBoundsTest, FormattingThatIsNeverClosedGoes) {
  const MarkupBounds bounds{.max_open_formatting = 2};
  EXPECT_FALSE(BoundMarkup("<b><i>x</i></b><b>x</b><b>", bounds).has_value());
  EXPECT_EQ(BoundMarkup("<p><b class=a>x<p><i>y<p><font>z</font></b>", bounds), "<p>x<p>y<p>z");
  EXPECT_EQ(BoundMarkup("<b><b><b>x<i hidden>no</i>y", bounds), "xy");
}

TEST(HtmlBoundsTest, WhatAStyleHidesIsHiddenAtAnyDepth) {
  const MarkupBounds bounds{.max_depth = 1, .max_attributes = 1};
  EXPECT_EQ(BoundMarkup("<div><div style='display: none'>no</div>x", bounds), "<div>x");
  EXPECT_EQ(BoundMarkup("<p a b c style=\"display:none\">x", bounds), "<p hidden>x");
}

TEST(HtmlBoundsTest, OfManyAttributesOnlyHiddenStays) {
  const MarkupBounds bounds{.max_attributes = 2};
  EXPECT_FALSE(BoundMarkup("<p a=1 b='>'>x", bounds).has_value());
  EXPECT_EQ(BoundMarkup("<p a=1 b='>' c>x<p a b HIDDEN d=\"hidden\">y", bounds), "<p>x<p hidden>y");
  EXPECT_EQ(BoundMarkup("<html a><body b><html c><body d><i a b c>x", bounds),
            "<html a><body b><html><body>x");
}

int DepthOf(const GumboNode* root) {
  std::vector<std::pair<const GumboNode*, int>> nodes = {{root, 1}};
  int depth = 0;
  while (!nodes.empty()) {
    const auto [node, level] = nodes.back();
    nodes.pop_back();
    depth = std::max(depth, level);
    if (node->type != GUMBO_NODE_ELEMENT && node->type != GUMBO_NODE_TEMPLATE) continue;
    const GumboVector& children = node->v.element.children;
    for (unsigned i = 0; i < children.length; ++i) {
      nodes.emplace_back(static_cast<const GumboNode*>(children.data[i]), level + 1);
    }
  }
  return depth;
}

// Whatever the tags are, a parser's tree is not much deeper than it may be.
TEST(HtmlBoundsTest, NoSoupOfTagsIsDeeperThanTheBounds) {
  constexpr const char* kNames[] = {
      "div",  "p",    "b",       "a",     "i",    "font",   "table",    "tr",     "td",
      "th",   "ul",   "li",      "dd",    "dt",   "span",   "form",     "h1",     "h2",
      "math", "mi",   "svg",     "desc",  "ruby", "rt",     "button",   "select", "option",
      "pre",  "code", "caption", "tbody", "nobr", "object", "optgroup", "x-y",    "address"};
  const MarkupBounds bounds{.max_depth = 24, .max_open_formatting = 4};
  std::mt19937 random(1);
  for (int soup = 0; soup < 2000; ++soup) {
    // Few names and a pattern of them: so depth grows.
    std::string pattern;
    const int n_tags = 1 + static_cast<int>(random() % 6);
    for (int i = 0; i < n_tags; ++i) {
      pattern += random() % 3 == 0 ? "</" : "<";
      pattern += kNames[random() % std::size(kNames)];
      pattern += random() % 8 == 0 ? " a=1>w" : ">";
    }
    const std::string page = Repeat(pattern, 200);
    const std::string bounded = BoundMarkup(page, bounds).value_or(page);
    GumboOutput* output = gumbo_parse(bounded.c_str());
    // The document, <html>, <body>, a text; a <p> and what is opened again beside each element.
    EXPECT_LE(DepthOf(output->root), 3 * 24 + 4 + 8) << pattern;
    gumbo_destroy_output(&kGumboDefaultOptions, output);
  }
}

}  // namespace
}  // namespace fovea::documents
