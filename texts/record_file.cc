#include "texts/record_file.h"

#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/strings.h"

namespace fovea::texts {
namespace {

using nlohmann::json;

constexpr size_t kMaxLineBytes = size_t{1} << 30;

}  // namespace

struct LineReader::Impl {
  absl::Status Open(const std::filesystem::path& path) {
    path_ = path;
    file_.reset(std::fopen(path.c_str(), "rb"));
    if (file_ == nullptr) return ErrnoToStatus(errno, "open", path);
    if (path.extension() == ".zst") zstd_.reset(ZSTD_createDStream());
    if (path.extension() == ".gz") {
      constexpr int kGzip = 16;  // what follows a gzip header
      gzip_.reset(new z_stream());
      if (inflateInit2(gzip_.get(), kGzip + MAX_WBITS) != Z_OK) {
        return absl::ResourceExhaustedError("no memory to decompress");
      }
    }
    return absl::OkStatus();
  }

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
    if (zstd_ == nullptr && gzip_ == nullptr) {
      text_ += bytes;
      return !bytes.empty();
    }
    if (bytes.empty()) {
      if (in_frame_)
        return absl::DataLossError(StrCat(path_, ": cut off: its last frame has no end"));
      return false;
    }
    RETURN_IF_ERROR(gzip_ != nullptr ? Unzip(bytes) : Unpack(bytes));
    return true;
  }

  // gzip: one or several members.
  absl::Status Unzip(std::string& bytes) {
    gzip_->next_in = reinterpret_cast<Bytef*>(bytes.data());
    gzip_->avail_in = static_cast<uInt>(bytes.size());
    std::string out(size_t{1} << 20, '\0');
    do {
      if (!std::exchange(in_frame_, true)) inflateReset(gzip_.get());
      gzip_->next_out = reinterpret_cast<Bytef*>(out.data());
      gzip_->avail_out = static_cast<uInt>(out.size());
      const int result = inflate(gzip_.get(), Z_NO_FLUSH);
      text_.append(out, 0, out.size() - gzip_->avail_out);
      if (result == Z_STREAM_END) {
        in_frame_ = false;
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        return absl::DataLossError(StrCat(path_, ": not what gzip compressed"));
      }
    } while (gzip_->avail_in > 0 || (in_frame_ && gzip_->avail_out == 0));
    return absl::OkStatus();
  }

  absl::Status Unpack(const std::string& bytes) {
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
    return absl::OkStatus();
  }

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  struct End {
    void operator()(z_stream* stream) const {
      inflateEnd(stream);
      delete stream;
    }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::unique_ptr<ZSTD_DStream, Free> zstd_;
  std::unique_ptr<z_stream, End> gzip_;
  bool in_frame_ = false;
  std::string text_;
  size_t begin_ = 0;
};

LineReader::LineReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LineReader::~LineReader() = default;

absl::StatusOr<std::unique_ptr<LineReader>> LineReader::Open(const std::filesystem::path& path) {
  auto impl = std::make_unique<Impl>();
  RETURN_IF_ERROR(impl->Open(path));
  return std::unique_ptr<LineReader>(new LineReader(std::move(impl)));
}

absl::StatusOr<bool> LineReader::Next(std::string* line) { return impl_->Next(line); }

absl::Status ReadLines(const std::filesystem::path& file,
                       const std::function<absl::StatusOr<bool>(const std::string& line)>& visit) {
  ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> reader, LineReader::Open(file));
  std::string line;
  for (int64_t n_line = 1;; ++n_line) {
    ASSIGN_OR_RETURN(const bool has_line, reader->Next(&line));
    if (!has_line) return absl::OkStatus();
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const absl::StatusOr<bool> goes_on = visit(line);
    // Who was asked to stop did not go wrong anywhere.
    if (absl::IsCancelled(goes_on.status())) return goes_on.status();
    if (!goes_on.ok()) return Annotate(goes_on.status(), StrCat(file, ", line ", n_line));
    if (!*goes_on) return absl::OkStatus();
  }
}

absl::StatusOr<Record> ParseRecord(const std::string& line) {
  const json record = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const auto text_of = [&](const char* key) -> std::string {
    const auto found = record.find(key);
    return found != record.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  Record result{.text = text_of("text"), .title = text_of("title")};
  if (!result.text.empty()) return result;
  result.context = text_of("context");
  result.question = text_of("question");
  if (const auto answers = record.find("answers"); answers != record.end() && answers->is_array()) {
    for (const json& answer : *answers) {
      if (answer.is_string()) result.answers.push_back(answer.get<std::string>());
    }
  }
  if (result.answers.empty()) result.answers.push_back(text_of("answer"));
  const bool is_question = !result.context.empty() && !result.question.empty();
  if (is_question && result.answers.front().empty()) {
    return absl::InvalidArgumentError(
        "a question without an answer: want `answers`, a list of strings, or `answer`; leave the "
        "record out where there is none");
  }
  if (!is_question) {
    return absl::InvalidArgumentError(
        "a record with neither text nor context, question and answers, as strings");
  }
  return result;
}

absl::Status ReadRecords(const std::filesystem::path& file,
                         const std::function<absl::StatusOr<bool>(Record record)>& visit) {
  int64_t n_records = 0;
  RETURN_IF_ERROR(ReadLines(file, [&](const std::string& line) -> absl::StatusOr<bool> {
    ASSIGN_OR_RETURN(Record record, ParseRecord(line));
    ++n_records;
    return visit(std::move(record));
  }));
  if (n_records > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat(file, ": holds no records: one JSON object a line is wanted"));
}

}  // namespace fovea::texts
