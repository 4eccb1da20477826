#include "answer/json.h"

namespace fovea::answer {

std::string JsonText(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

Json ToJson(const memory::Passage& passage) {
  return {{"document", passage.document},
          {"title", passage.title},
          {"source", passage.source},
          {"other_sources", passage.other_sources},
          {"collection", passage.collection},
          {"start", passage.start},
          {"end", passage.end},
          {"mass", passage.mass},
          {"reread", passage.reread},
          {"text", passage.text},
          {"excerpt", passage.excerpt()}};
}

Json ToJson(const storage::SourceReference& source) {
  return {{"source", source.source}, {"title", source.title}, {"collection", source.collection}};
}

Json ToJson(const storage::DocumentRecord& document) {
  Json sources = Json::array();
  for (const storage::SourceReference& source : document.sources) sources.push_back(ToJson(source));
  return {{"id", document.id},
          {"title", document.title()},
          {"source", document.source()},
          {"sources", std::move(sources)},
          {"collections", document.collections()},
          {"bytes", document.size_bytes},
          {"tokens", document.n_tokens},
          {"windows", document.n_windows},
          {"ingested_unix_s", document.ingested_unix_s}};
}

Json ToJson(const memory::IngestedDocument& document) {
  return {{"id", document.id},
          {"title", document.title},
          {"source", document.source},
          {"tokens", document.tokens},
          {"windows", document.windows},
          {"encoded_windows", document.encoded_windows},
          {"status", memory::IngestStatusName(document.status)},
          {"error", document.error}};
}

Json ToJson(const std::vector<SourceMark>& marks) {
  Json list = Json::array();
  for (const SourceMark& mark : marks) {
    list.push_back({{"start", mark.start}, {"end", mark.end}, {"source", mark.source}});
  }
  return list;
}

}  // namespace fovea::answer
