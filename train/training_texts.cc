#include "train/training_texts.h"

#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "train/harvest.h"

namespace fovea::train {
namespace {

using nlohmann::json;

constexpr size_t kMaxLineBytes = size_t{1} << 30;

// The lines of a file, decompressed where its name says so.
class LineReader {
 public:
  static absl::StatusOr<std::unique_ptr<LineReader>> Open(const std::filesystem::path& path) {
    auto reader = std::make_unique<LineReader>();
    reader->path_ = path;
    reader->file_.reset(std::fopen(path.c_str(), "rb"));
    if (reader->file_ == nullptr) return ErrnoToStatus(errno, "open", path);
    if (path.extension() == ".zst") reader->zstd_.reset(ZSTD_createDStream());
    return reader;
  }

  // False at the end.
  absl::StatusOr<bool> Next(std::string* line) {
    for (;;) {
      const size_t end = text_.find('\n', begin_);
      if (end != std::string::npos) {
        line->assign(text_, begin_, end - begin_);
        begin_ = end + 1;
        return true;
      }
      text_.erase(0, std::exchange(begin_, 0));
      if (text_.size() > kMaxLineBytes) {
        return absl::InvalidArgumentError(
            StrCat(path_, ": a line of more than ", kMaxLineBytes, " bytes"));
      }
      ASSIGN_OR_RETURN(const bool more, Fill());
      if (more) continue;
      if (text_.empty()) return false;
      line->swap(text_);
      text_.clear();
      return true;
    }
  }

 private:
  absl::StatusOr<bool> Fill() {
    std::string bytes(size_t{1} << 20, '\0');
    bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file_.get()));
    if (std::ferror(file_.get()) != 0) return ErrnoToStatus(errno, "read", path_);
    if (zstd_ == nullptr) {
      text_ += bytes;
      return !bytes.empty();
    }
    if (bytes.empty()) {
      if (in_frame_)
        return absl::DataLossError(StrCat(path_, ": cut off: its last frame has no end"));
      return false;
    }
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    std::string out(ZSTD_DStreamOutSize(), '\0');
    bool may_have_more = true;
    while (in.pos < in.size || may_have_more) {
      ZSTD_outBuffer to{out.data(), out.size(), 0};
      const size_t left = ZSTD_decompressStream(zstd_.get(), &to, &in);
      if (ZSTD_isError(left) != 0) {
        return absl::DataLossError(
            StrCat(path_, ": not what zstd compressed: ", ZSTD_getErrorName(left)));
      }
      in_frame_ = left != 0;
      text_.append(out, 0, to.pos);
      may_have_more = to.pos == to.size;
    }
    return true;
  }

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::unique_ptr<ZSTD_DStream, Free> zstd_;
  bool in_frame_ = false;
  std::string text_;
  size_t begin_ = 0;
};

struct Question {
  std::string context, question, answer;
};

// What a record is; empty strings where it is of the other kind.
struct Record {
  std::string text;
  Question question;
};

absl::StatusOr<Record> ParseRecord(const std::string& line) {
  const json record = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const auto text_of = [&](const char* key) -> std::string {
    const auto found = record.find(key);
    return found != record.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  Record result;
  result.text = text_of("text");
  if (!result.text.empty()) return result;
  result.question = {text_of("context"), text_of("question"), text_of("answer")};
  if (const auto answers = record.find("answers"); answers != record.end() && answers->is_array() &&
                                                   !answers->empty() && (*answers)[0].is_string()) {
    result.question.answer = (*answers)[0].get<std::string>();
  }
  const Question& q = result.question;
  if (q.context.empty() || q.question.empty() || q.answer.empty()) {
    return absl::InvalidArgumentError(
        "a record with neither text nor context, question and answers, as strings");
  }
  return result;
}

}  // namespace

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
  WordHarvest harvest;
  std::map<std::string, size_t> passage_of;  // by context
  int64_t n_tokens = 0;
  for (const std::filesystem::path& file : files) {
    ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> reader, LineReader::Open(file));
    std::string line;
    int64_t n_lines = 0;
    int64_t n_records = 0;
    for (;;) {
      ASSIGN_OR_RETURN(const bool has_line, reader->Next(&line));
      if (!has_line) break;
      ++n_lines;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      absl::StatusOr<Record> record = ParseRecord(line);
      if (!record.ok()) {
        return absl::InvalidArgumentError(
            StrCat(file, ", line ", n_lines, ": ", record.status().message()));
      }
      ++n_records;
      if (!record->text.empty()) {
        if (n_tokens >= max_tokens) continue;
        harvest.Add(record->text);
        Tokens ids = writer.Encode(record->text);
        n_tokens += static_cast<int64_t>(ids.size());
        if (!ids.empty()) texts.books.push_back(std::move(ids));
        RETURN_IF_ERROR(progress.Report(
            {.stage = "read texts", .done = n_tokens, .total = 0, .unit = "tokens"}));
        continue;
      }
      const Question& q = record->question;
      const auto [place, is_new] = passage_of.try_emplace(q.context, texts.passages.size());
      if (is_new) {
        texts.passages.push_back({.text = q.context, .ids = writer.Encode(q.context)});
        RETURN_IF_ERROR(progress.Report({.stage = "read questions",
                                         .done = static_cast<int64_t>(texts.passages.size()),
                                         .total = 0,
                                         .unit = "passages"}));
      }
      ASSIGN_OR_RETURN(Exchange exchange, writer.Write(q.question, q.answer));
      texts.passages[place->second].questions.push_back(std::move(exchange));
    }
    if (n_records == 0) {
      return absl::InvalidArgumentError(StrCat(file,
                                               ": holds no records: one JSON object a line is "
                                               "wanted"));
    }
  }
  harvest.Finish(&texts);
  return texts;
}

}  // namespace fovea::train
