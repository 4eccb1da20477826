#include "serve/page/page.h"

namespace fovea::serve {
namespace {

constexpr std::string_view kHtml = R"html(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>fovea</title>
<h1>fovea</h1>
<p>This server answers OpenAI's API at <code>/v1</code>, with documents at
<code>/v1/documents</code> and passages at <code>/v1/search</code>.
<p><a href="/health">/health</a>, <a href="/v1/models">/v1/models</a>,
<a href="/metrics">/metrics</a>
</html>
)html";

}  // namespace

std::string_view PageHtml() { return kHtml; }

}  // namespace fovea::serve
