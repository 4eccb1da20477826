#include "cli/encode_estimate.h"

#include <algorithm>

namespace fovea::cli {
namespace {

// Of English text with vocabularies of some 50,000 tokens.
constexpr double kBytesPerToken = 4.2;

// Calls `visit` with the source, and with each part of it in front of a "#": one is the file's.
template <typename Visit>
void ForEachFile(std::string_view source, Visit visit) {
  visit(source);
  for (size_t at = source.rfind('#'); at != source.npos && at > 0; at = source.rfind('#', at - 1)) {
    visit(source.substr(0, at));
  }
}

}  // namespace

EncodeEstimate::EncodeEstimate(std::span<const storage::DocumentRecord> stored) {
  for (const storage::DocumentRecord& document : stored) {
    for (const storage::SourceReference& reference : document.sources) {
      ForEachFile(reference.source, [&](std::string_view file) {
        int64_t& newest = stored_unix_s_.try_emplace(std::string(file)).first->second;
        newest = std::max(newest, document.ingested_unix_s);
      });
    }
  }
}

void EncodeEstimate::AddFile(const std::string& source, uint64_t text_bytes,
                             int64_t modified_unix_s) {
  const auto stored = stored_unix_s_.find(source);
  if (stored != stored_unix_s_.end() && modified_unix_s < stored->second) return;
  if (counted_.emplace(source, text_bytes).second) text_bytes_ += text_bytes;
}

void EncodeEstimate::Skip(const std::string& source) {
  const auto counted = counted_.find(source);
  if (counted == counted_.end()) return;
  text_bytes_ -= counted->second;
  counted_.erase(counted);
}

void EncodeEstimate::Report(const memory::IngestedDocument& document) {
  Skip(document.source);    // in its place comes what is known now
  bool is_counted = false;  // as a record of a file
  ForEachFile(document.source,
              [&](std::string_view file) { is_counted |= counted_.contains(file); });
  more_tokens_ += static_cast<int64_t>(document.encoded_tokens);
  if (is_counted) more_tokens_ -= static_cast<int64_t>(document.tokens);
}

int64_t EncodeEstimate::tokens() const {
  if (!is_known_) return 0;
  const double expected = static_cast<double>(text_bytes_) / kBytesPerToken;
  return std::max<int64_t>(1, static_cast<int64_t>(expected) + more_tokens_);
}

}  // namespace fovea::cli
