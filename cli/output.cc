#include "cli/output.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "compute/dtype.h"
#include "model/tokenizer/chat_template.h"

namespace fovea::cli {
namespace {

using answer::ToJson;

// Times and rates with three decimals: the rest is noise.
double Rounded(double value) { return std::isfinite(value) ? std::round(value * 1e3) / 1e3 : 0.0; }

Json ToJson(const memory::VerifyFinding& finding) {
  return {{"kind", finding.kind}, {"document", finding.document}, {"what", finding.what}};
}

Json ToJson(const IngestSummary::Warning& warning) {
  return {{"source", warning.source}, {"warning", warning.warning}};
}

Json ToJson(const IngestSummary::Skipped& skipped) {
  return {{"kind", skipped.kind}, {"files", skipped.n_files}, {"first", skipped.first}};
}

template <typename T>
Json ToJsonList(const std::vector<T>& items) {
  Json list = Json::array();
  for (const T& item : items) list.push_back(ToJson(item));
  return list;
}

}  // namespace

std::string JsonLine(const Json& json) { return answer::JsonText(json) + "\n"; }

Json ToJson(const IngestSummary& summary) {
  return {{"documents", ToJsonList(summary.documents)},
          {"dry_run", summary.dry_run},
          {"tokens", summary.tokens},
          {"encoded_tokens", summary.encoded_tokens},
          {"seconds", Rounded(summary.seconds)},
          {"tokens_per_second", Rounded(summary.tokens_per_second())},
          {"warnings", ToJsonList(summary.warnings)},
          {"skipped", ToJsonList(summary.skipped)}};
}

Json ToJson(const answer::Answer& answer, double open_ms, const std::vector<std::string>& notes) {
  std::vector<std::string> all_notes = notes;
  all_notes.insert(all_notes.end(), answer.notes.begin(), answer.notes.end());
  Json audit = nullptr;
  if (answer.audit.has_value()) {
    audit = {{"captured_mass", answer.audit->captured_mass},
             {"needle_recall", answer.audit->needle_recall}};
  }
  Json json = {{"question", answer.question},
               {"answer", answer.text},
               {"finish_reason", answer.finish_reason},
               {"sources", ToJsonList(answer.sources)},
               {"notes", all_notes},
               {"usage",
                {{"prompt_tokens", answer.usage.prompt_tokens},
                 {"completion_tokens", answer.usage.completion_tokens},
                 {"memory_tokens", answer.usage.memory_tokens}}},
               {"timing",
                {{"open_ms", Rounded(open_ms)},
                 {"prefill_ms", Rounded(answer.timing.prefill_ms)},
                 {"decode_ms_per_token", Rounded(answer.timing.decode_ms_per_token)}}},
               {"audit", std::move(audit)}};
  if (answer.marks.has_value()) json["marks"] = answer::ToJson(*answer.marks);
  return json;
}

Json FailedQuestionJson(const std::string& question, const absl::Status& status) {
  return {{"question", question}, {"error", std::string(status.message())}};
}

Json ToJson(const memory::VerifyReport& report) {
  return {{"ok", report.ok},
          {"checked",
           {{"documents", report.documents},
            {"blocks", report.blocks},
            {"index_files", report.index_files}}},
          {"damaged", ToJsonList(report.damaged)},
          {"repaired", ToJsonList(report.repaired)},
          {"notes", ToJsonList(report.notes)}};
}

Json ToJson(const memory::Stats& stats, const storage::StoreSettings& settings) {
  Json collections = Json::object();
  for (const auto& [name, n_documents] : stats.collections) collections[name] = n_documents;
  Json segments = Json::array();
  for (const memory::Stats::SegmentStats& segment : stats.segments) {
    segments.push_back({{"tokens", segment.tokens},
                        {"index", segment.index},
                        {"state", segment.state},
                        {"needle_recall", segment.needle_recall},
                        {"candidates", segment.n_candidates}});
  }
  return {
      {"documents", stats.documents},
      {"collections", std::move(collections)},
      {"tokens", stats.tokens},
      {"slots", stats.slots},
      {"deleted_slots", stats.deleted_slots},
      {"unfinished",
       {{"documents", stats.unfinished_documents}, {"tokens", stats.unfinished_tokens}}},
      {"bytes",
       {{"text", stats.text_bytes}, {"blocks", stats.block_bytes}, {"index", stats.index_bytes}}},
      {"segments", std::move(segments)},
      {"model", settings.model},
      {"fingerprint", settings.fingerprint},
      {"format_version", stats.format_version}};
}

Json ToJson(const memory::SearchStats& stats) {
  return {
      {"on", stats.is_on_gpu ? "gpu" : "host"},
      {"by", stats.by},
      {"gpu_bytes",
       {{"keys", stats.gpu_key_bytes},
        {"codes", stats.gpu_code_bytes},
        {"indexes", stats.gpu_index_bytes},
        {"values", stats.gpu_value_bytes}}},
      {"pinned_bytes", {{"keys", stats.pinned_key_bytes}, {"values", stats.pinned_value_bytes}}},
      {"stored_bytes", {{"values", stats.stored_value_bytes}}},
      {"note", stats.note}};
}

Json ToJson(const memory::RebuildResult& result, double seconds) {
  Json segments = Json::array();
  for (size_t i = 0; i < result.specs.size(); ++i) {
    segments.push_back(
        {{"index", result.specs[i]},
         {"needle_recall",
          i < result.needle_recall.size() ? result.needle_recall[i] : std::vector<double>()}});
  }
  return {{"generation", result.generation},
          {"segments_built", result.segments_built},
          {"segments_resumed", result.segments_resumed},
          {"segments", std::move(segments)},
          {"seconds", Rounded(seconds)}};
}

Json ToJson(const memory::ReencodeResult& result, const std::string& fingerprint, double seconds) {
  return {{"documents", result.documents},
          {"tokens", result.tokens},
          {"fingerprint", fingerprint},
          {"seconds", Rounded(seconds)}};
}

Json ToJson(const model::Checkpoint& checkpoint, const LoadedAdapter& adapter) {
  const model::ModelConfig& config = checkpoint.config();
  Json types = Json::object();
  Json tensors = Json::array();
  uint64_t parameters = 0;
  uint64_t size_bytes = 0;
  for (const model::Tensor& tensor : checkpoint.tensors()) {
    uint64_t n_values = 1;
    for (const int64_t size : tensor.shape) n_values *= static_cast<uint64_t>(size);
    parameters += n_values;
    size_bytes += tensor.size_bytes;
    const std::string type(compute::Traits(tensor.dtype).name);
    if (!types.contains(type)) types[type] = {{"tensors", 0}, {"bytes", 0}};
    types[type]["tensors"] = types[type]["tensors"].get<int64_t>() + 1;
    types[type]["bytes"] = types[type]["bytes"].get<uint64_t>() + tensor.size_bytes;
    tensors.push_back({{"name", tensor.name},
                       {"type", type},
                       {"shape", tensor.shape},
                       {"bytes", tensor.size_bytes}});
  }
  Json memory = nullptr;
  const model::MemoryConfig& memory_config =
      adapter.adapter != nullptr ? adapter.adapter->memory_config() : checkpoint.memory_config();
  if (!memory_config.mem_layers.empty()) {
    memory = {{"layers", memory_config.mem_layers},
              {"window", memory_config.window},
              {"top_k", memory_config.top_k},
              {"encoding", memory_config.encoding}};
  }
  Json adapter_json = nullptr;
  if (adapter.adapter != nullptr) {
    adapter_json = {{"path", adapter.path},
                    {"fingerprint", adapter.adapter->Fingerprint().ToHex()}};
  }
  const model::TokenizerSpec& tokenizer = checkpoint.tokenizer_spec();
  const std::string_view tokenizer_kind =
      tokenizer.kind == model::TokenizerSpec::Kind::kByteLevelBpe    ? "byte-level BPE"
      : tokenizer.kind == model::TokenizerSpec::Kind::kSentencePiece ? "SentencePiece"
                                                                     : "none";
  return {
      {"path", checkpoint.path().string()},
      {"architecture", config.architecture},
      {"name", config.name},
      {"parameters", parameters},
      {"bytes", size_bytes},
      {"n_layers", config.n_layers},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"n_heads", config.n_heads},
      {"n_kv_heads", config.n_kv_heads},
      {"head_dim", config.head_dim},
      {"vocab_size", config.vocab_size},
      {"max_position_embeddings", config.max_position_embeddings},
      {"tokenizer", tokenizer_kind},
      {"pre_tokenizer", tokenizer.pre_tokenizer},
      {"chat_format", model::ChatFormatName(model::RecognizeChatFormat(tokenizer.chat_template))},
      {"types", std::move(types)},
      {"fingerprint", checkpoint.Fingerprint().ToHex()},
      {"memory", std::move(memory)},
      {"adapter", std::move(adapter_json)},
      {"tensors", std::move(tensors)}};
}

Json ToJson(const model_home::NamedModel& model) {
  return {{"name", model.name},
          {"path", model.path.string()},
          {"installed", model.installed},
          {"bytes", model.size_bytes}};
}

Json ToJson(const model_home::NamedAdapter& adapter) {
  return {{"name", adapter.name},
          {"path", adapter.path.string()},
          {"base_fingerprint", adapter.base_fingerprint}};
}

}  // namespace fovea::cli
