#include "train/training_texts.h"

#include <algorithm>
#include <future>
#include <map>
#include <thread>
#include <utility>

#include "base/strings.h"
#include "texts/harvest.h"
#include "texts/record_file.h"

namespace fovea::train {

absl::StatusOr<Exchange> ExchangeWriter::Write(const std::string& question,
                                               const std::string& answer) const {
  std::vector<model::ChatMessage> messages;
  using Role = model::ChatMessage::Role;
  if (system_prompt_ != nullptr && !system_prompt_->empty()) {
    messages.push_back({Role::kSystem, *system_prompt_});
  }
  messages.push_back({Role::kUser, question});
  Exchange exchange;
  exchange.question = question;
  exchange.reply = answer;
  ASSIGN_OR_RETURN(exchange.prompt, model::RenderChat(tokenizer_, format_, messages));
  exchange.answer = Encode(answer);
  exchange.answer.push_back(end_id());
  return exchange;
}

absl::StatusOr<Exchange> ExchangeWriter::WriteWithPassages(const std::vector<std::string>& passages,
                                                           const std::string& question,
                                                           const std::string& answer) const {
  std::string message;
  for (const std::string& passage : passages) message += StrCat(passage, "\n\n");
  return Write(message + question, answer);
}

int32_t ExchangeWriter::end_id() const {
  return std::max(0, model::ClosingId(tokenizer_, format_));
}

namespace {

// Passages that are read again have about 700 bytes.
constexpr size_t kLongestContext = 3000;
constexpr size_t kFewestBytes = 500;
constexpr size_t kMoreBytes = 900;  // up to

// A stretch of the context around the answer, from one space to another; empty where the context
// does not hold it.
std::string CutAround(const std::string& context, const std::string& answer, Random& random) {
  const size_t at = context.find(answer);
  if (at == std::string::npos) return {};
  const size_t size = kFewestBytes + random.Below(kMoreBytes) + answer.size();
  const size_t before = random.Below(size - answer.size());
  size_t begin = at > before ? at - before : 0;
  size_t end = std::min(context.size(), begin + size);
  if (begin > 0) begin = std::min(context.find(' ', begin), at);
  if (end < context.size()) end = std::max(context.rfind(' ', end), at + answer.size());
  while (begin < at && context[begin] == ' ') ++begin;
  return context.substr(begin, end - begin);
}

}  // namespace

absl::StatusOr<TrainingTexts> ReadTrainingTexts(const std::vector<std::filesystem::path>& files,
                                                const ExchangeWriter& writer, int64_t max_tokens,
                                                const Progress& progress) {
  TrainingTexts texts;
  texts::WordHarvest harvest;
  std::map<std::string, size_t> passage_of;  // by context
  int64_t n_tokens = 0;
  Random random(0, 0);
  const size_t n_threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::string> unread;  // books
  const auto encode_books = [&]() -> absl::Status {
    std::vector<std::future<Tokens>> encoded;
    for (const std::string& text : unread) {
      if (n_tokens >= max_tokens) break;
      encoded.push_back(std::async(std::launch::async, [&] { return writer.Encode(text); }));
    }
    for (size_t i = 0; i < encoded.size(); ++i) {
      Tokens ids = encoded[i].get();
      if (n_tokens >= max_tokens) continue;
      harvest.Add(unread[i]);
      n_tokens += static_cast<int64_t>(ids.size());
      if (!ids.empty()) texts.books.push_back(std::move(ids));
    }
    unread.clear();
    return progress.Report({.stage = "read texts", .done = n_tokens, .total = 0, .unit = "tokens"});
  };
  const auto add = [&](texts::Record record) -> absl::StatusOr<bool> {
    if (!record.text.empty()) {
      unread.push_back(std::move(record.text));
      if (unread.size() >= n_threads) RETURN_IF_ERROR(encode_books());
      return true;
    }
    if (record.context.size() > kLongestContext) {
      record.context = CutAround(record.context, record.answers.front(), random);
      if (record.context.empty()) return true;
    }
    const auto [place, is_new] = passage_of.try_emplace(record.context, texts.passages.size());
    if (is_new) {
      texts.passages.push_back({.text = record.context, .ids = writer.Encode(record.context)});
      RETURN_IF_ERROR(progress.Report({.stage = "read questions",
                                       .done = static_cast<int64_t>(texts.passages.size()),
                                       .total = 0,
                                       .unit = "passages"}));
    }
    ASSIGN_OR_RETURN(Exchange exchange, writer.Write(record.question, record.answers.front()));
    texts.passages[place->second].questions.push_back(std::move(exchange));
    return true;
  };
  for (const std::filesystem::path& file : files) {
    const size_t begin = texts.passages.size();
    RETURN_IF_ERROR(texts::ReadRecords(file, add));
    if (texts.passages.size() > begin) texts.file_begins.push_back(begin);
  }
  RETURN_IF_ERROR(encode_books());
  harvest.Finish(&texts.words);
  return texts;
}

}  // namespace fovea::train
