#include "train/training_texts.h"

#include <map>
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

absl::StatusOr<Exchange> ExchangeWriter::WriteWithPassage(const std::string& passage,
                                                          const std::string& question,
                                                          const std::string& answer) const {
  return Write(StrCat(passage, "\n\n", question), answer);
}

int32_t ExchangeWriter::end_id() const {
  const std::vector<int32_t> ends = model::ChatEndIds(tokenizer_, format_);
  if (!ends.empty()) return ends.front();
  for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id) {
    if (tokenizer_.IsEnd(id)) return id;
  }
  return 0;
}

absl::StatusOr<TrainingTexts> ReadTrainingTexts(const std::vector<std::filesystem::path>& files,
                                                const ExchangeWriter& writer, int64_t max_tokens,
                                                const Progress& progress) {
  TrainingTexts texts;
  texts::WordHarvest harvest;
  std::map<std::string, size_t> passage_of;  // by context
  int64_t n_tokens = 0;
  const auto add = [&](texts::Record record) -> absl::StatusOr<bool> {
    if (!record.text.empty()) {
      if (n_tokens >= max_tokens) return true;
      harvest.Add(record.text);
      Tokens ids = writer.Encode(record.text);
      n_tokens += static_cast<int64_t>(ids.size());
      if (!ids.empty()) texts.books.push_back(std::move(ids));
      RETURN_IF_ERROR(
          progress.Report({.stage = "read texts", .done = n_tokens, .total = 0, .unit = "tokens"}));
      return true;
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
  for (const std::filesystem::path& file : files) RETURN_IF_ERROR(texts::ReadRecords(file, add));
  harvest.Finish(&texts.words);
  return texts;
}

}  // namespace fovea::train
