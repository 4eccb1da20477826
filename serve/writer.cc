#include "serve/writer.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <optional>
#include <utility>

#include "base/file.h"
#include "documents/names.h"
#include "documents/text_document.h"
#include "documents/titles.h"
#include "memory/ingest/ingester.h"
#include "memory/upkeep/rebuild.h"

namespace fovea::serve {
namespace {

using documents::TextDocument;
using memory::IngestedDocument;
using memory::IngestStatus;

// Weight 110 against the 1,024 of threads that answer: about a tenth of a processor that both want
// (Linux' sched(7), "nice value"). Threads that this one starts inherit it.
constexpr int kNiceness = 10;

constexpr std::string_view kSourcePrefix = "upload:";

std::string SourceOf(const Upload& upload) { return StrCat(kSourcePrefix, upload.name); }

// `text` with the source that the file at `path` would have replaced by the upload's.
std::string WithOwnSource(std::string text, const std::filesystem::path& path,
                          const Upload& upload) {
  const std::string source = SourceOf(upload);
  const std::string of_path = documents::SourceOfPath(path).value_or(path.string());
  for (size_t at = text.find(of_path); at != std::string::npos; at = text.find(of_path, at)) {
    text.replace(at, of_path.size(), source);
    at += source.size();
  }
  return text;
}

// InvalidArgument, with the errors, where documents came and none of them could be stored.
absl::Status CheckStored(const Job& job) {
  constexpr size_t kMostErrors = 5;
  const auto failed = [](const auto& document) { return document.status == IngestStatus::kFailed; };
  if (job.documents.empty() || !std::all_of(job.documents.begin(), job.documents.end(), failed)) {
    return absl::OkStatus();
  }
  std::string errors;
  for (size_t i = 0; i < std::min(kMostErrors, job.documents.size()); ++i) {
    const IngestedDocument& document = job.documents[i];
    // Most errors begin with the file that they are about.
    const bool names_source = document.error.starts_with(document.source);
    errors += StrCat(i == 0 ? "" : "; ", names_source ? "" : StrCat(document.source, ": "),
                     document.error);
  }
  if (job.documents.size() > kMostErrors) {
    errors += StrCat("; and ", job.documents.size() - kMostErrors, " more");
  }
  return absl::InvalidArgumentError(errors);
}

}  // namespace

// Collects in a job what becomes of its documents.
class IngestReport {
 public:
  explicit IngestReport(Job* job) : job_(job) {
    for (size_t i = 0; i < job->documents.size(); ++i) {
      places_.emplace(job->documents[i].source, i);
    }
  }

  // Of a document that was reported before the job was interrupted the first report says what the
  // job did.
  void Add(IngestedDocument document) {
    const auto [place, is_new] = places_.try_emplace(document.source, job_->documents.size());
    if (is_new) {
      job_->documents.push_back(std::move(document));
    } else if (document.status != IngestStatus::kUnchanged) {
      job_->documents[place->second] = std::move(document);
    }
  }

  void Warn(std::string warning) {
    auto& warnings = job_->warnings;
    if (std::find(warnings.begin(), warnings.end(), warning) == warnings.end()) {
      warnings.push_back(std::move(warning));
    }
  }

 private:
  Job* job_;
  std::map<std::string, size_t> places_;
};

absl::StatusOr<std::unique_ptr<Writer>> Writer::Start(answer::Fovea* fovea, JobStore* jobs) {
  std::unique_ptr<Writer> writer(new Writer(fovea, jobs));
  writer->thread_ = std::thread([writer = writer.get()] { writer->Work(); });
  std::unique_lock lock(writer->mutex_);
  writer->changed_.wait(lock, [&] { return writer->is_prepared_; });
  const absl::Status prepared = writer->prepared_;
  lock.unlock();
  RETURN_IF_ERROR(prepared);
  return writer;
}

Writer::~Writer() { Stop(); }

void Writer::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    interrupted_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status Writer::Prepare() {
  // Not being allowed to is no reason not to work.
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNiceness);
  compute::Device* const device = fovea_->model().device();
  ASSIGN_OR_RETURN(device_, device->CreateAnother(device->threads().n_threads()));
  return absl::OkStatus();
}

absl::StatusOr<Job> Writer::Add(Job job, std::vector<UploadFile> files) {
  ASSIGN_OR_RETURN(job, jobs_->Add(std::move(job), std::move(files)));
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
  return job;
}

absl::StatusOr<Job> Writer::Cancel(uint64_t id) {
  std::unique_lock lock(mutex_);
  std::optional<Job> job = jobs_->Find(id);
  if (!job.has_value()) return absl::NotFoundError(StrCat("there is no job ", id));
  if (job->has_ended()) {
    return absl::FailedPreconditionError(
        StrCat("job ", id, " has ended already: it is ", JobStateName(job->state)));
  }
  if (running_id_ == id) {
    cancelling_.insert(id);
    interrupted_ = true;
    const auto has_ended = [&] {
      const std::optional<Job> now = jobs_->Find(id);
      if (now.has_value()) job = now;
      return !now.has_value() || now->has_ended();
    };
    changed_.wait(lock, [&] { return has_ended() || is_stopped_; });
    cancelling_.erase(id);
    return *job;
  }
  job->state = JobState::kCancelled;
  job->ended_unix_s = static_cast<int64_t>(std::time(nullptr));
  RETURN_IF_ERROR(jobs_->Update(*job));
  return *job;
}

absl::Status Writer::Change(std::function<absl::Status(memory::Memory&)> change) {
  PendingChange pending{.change = std::move(change), .status = {}, .is_done = false};
  std::unique_lock lock(mutex_);
  if (is_stopped_) return absl::UnavailableError("the server is stopping");
  changes_.push_back(&pending);
  interrupted_ = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return pending.is_done; });
  return pending.status;
}

void Writer::Work() {
  absl::Status prepared = Prepare();
  std::unique_lock lock(mutex_);
  prepared_ = prepared;
  is_prepared_ = true;
  changed_.notify_all();
  if (!prepared.ok()) return;
  for (;;) {
    std::optional<Job> next;
    changed_.wait(lock, [&] {
      return is_stopped_ || !changes_.empty() || (next = jobs_->NextWaiting()).has_value();
    });
    if (!changes_.empty()) {
      PendingChange* const pending = changes_.front();
      changes_.pop_front();
      lock.unlock();
      absl::Status status = pending->change(fovea_->memory());
      lock.lock();
      pending->status = std::move(status);
      pending->is_done = true;
      changed_.notify_all();
      continue;
    }
    if (is_stopped_) return;
    running_id_ = next->id;
    interrupted_ = false;
    lock.unlock();
    Carry(*std::move(next));
    lock.lock();
    running_id_ = 0;
    changed_.notify_all();
  }
}

void Writer::Carry(Job job) {
  const auto is_cancelling = [&] {
    const std::lock_guard lock(mutex_);
    return cancelling_.contains(job.id);
  };
  absl::Status status = absl::CancelledError("cancelled");
  if (!is_cancelling()) {
    job.state = JobState::kRunning;
    status = jobs_->Update(job);
    if (status.ok()) status = job.kind == JobKind::kIngest ? Ingest(&job) : Rebuild(&job);
  }
  job.state = JobState::kDone;
  if (status.ok()) status = CheckStored(job);
  if (absl::IsCancelled(status)) {
    job.state = is_cancelling() ? JobState::kCancelled : JobState::kWaiting;
  } else if (!status.ok()) {
    job.state = JobState::kFailed;
    job.error = std::string(status.message());
  }
  job.progress = {};
  if (job.has_ended()) job.ended_unix_s = static_cast<int64_t>(std::time(nullptr));
  const absl::Status stored = jobs_->Update(job);
  if (stored.ok()) return;
  // It is not begun again by this process: that could go on for ever. The next one does.
  job.state = JobState::kFailed;
  job.error = StrCat(job.error.empty() ? "" : job.error + "; ", "its record: ", stored.message());
  jobs_->Show(job);
}

void Writer::Show(const Job& job) {
  constexpr std::chrono::milliseconds kPause(200);
  const auto now = std::chrono::steady_clock::now();
  if (now < shown_at_ + kPause) return;
  shown_at_ = now;
  jobs_->Show(job);
}

Progress Writer::ProgressOf(Job* job) {
  // While segments are sealed another thread reports: its updates are passed on by this one.
  return Progress(
      [this, job](const ProgressUpdate& update) {
        job->progress = update;
        Show(*job);
      },
      &interrupted_);
}

absl::Status Writer::Ingest(Job* job) {
  IngestReport report(job);
  memory::IngestOptions options = fovea_->ingest_options();
  options.device = device_.get();
  options.one_text_per_source = true;
  options.progress = ProgressOf(job);
  options.on_document = [&](IngestedDocument document) {
    if (!document.error.empty()) {
      for (const Upload& upload : job->uploads) {
        document.error =
            WithOwnSource(std::move(document.error), jobs_->UploadPath(upload), upload);
      }
    }
    report.Add(std::move(document));
    Show(*job);
  };
  memory::Memory& memory = fovea_->memory();
  absl::Status status;
  {
    ASSIGN_OR_RETURN(const auto ingester,
                     memory::Ingester::Create(&memory, &fovea_->model(), options));
    status = AddUploads(job, &report, ingester.get());
    if (status.ok()) status = ingester->Finish();
  }
  if (!absl::IsCancelled(status)) return status;
  {
    const std::lock_guard lock(mutex_);
    if (is_stopped_) return status;  // the next start does what follows
  }
  // What is stored so far is to be found.
  RETURN_IF_ERROR(memory.UpdateTextIndex(Progress()));
  RETURN_IF_ERROR(memory.Publish());
  return status;
}

absl::Status Writer::AddUploads(Job* job, IngestReport* report, memory::Ingester* ingester) {
  job->n_files_done = 0;
  for (const Upload& upload : job->uploads) {
    if (interrupted_) return absl::CancelledError("interrupted");
    const std::filesystem::path path = jobs_->UploadPath(upload);
    if (upload.is_text) {
      ASSIGN_OR_RETURN(std::string text, ReadFile(path));
      const auto document =
          documents::MakeTextDocument(upload.name, SourceOf(upload), std::move(text));
      RETURN_IF_ERROR(ingester->Add(*document, job->collection));
      ++job->n_files_done;
      continue;
    }
    const auto add = [&](const std::string& name,
                         absl::StatusOr<std::unique_ptr<TextDocument>> document) -> absl::Status {
      if (!document.ok()) {
        report->Add(
            memory::FailedDocument("", WithOwnSource(name, path, upload),
                                   absl::InvalidArgumentError(WithOwnSource(
                                       std::string(document.status().message()), path, upload))));
        return absl::OkStatus();
      }
      TextDocument& text = **document;
      // A title that was made from the name of the file.
      if (text.title == documents::FileTitle(path)) {
        text.title = documents::FileTitle(upload.name);
      } else if (text.title == documents::FileNameTitle(path)) {
        text.title = documents::FileNameTitle(upload.name);
      }
      text.source = WithOwnSource(text.source, path, upload);
      // Who may write to one collection does not choose another one in a file.
      text.collection.clear();
      RETURN_IF_ERROR(ingester->Add(text, job->collection));
      if (!text.warning.empty()) report->Warn(StrCat(text.source, ": ", text.warning));
      return absl::OkStatus();
    };
    RETURN_IF_ERROR(documents::ReadDocuments(path, {}, add));
    ++job->n_files_done;
  }
  return absl::OkStatus();
}

absl::Status Writer::Rebuild(Job* job) {
  return memory::Rebuild(*device_, &fovea_->memory(), job->index, ProgressOf(job)).status();
}

}  // namespace fovea::serve
