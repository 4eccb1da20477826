#include "serve/job_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <set>
#include <system_error>
#include <utility>

#include "base/file.h"

namespace fovea::serve {
namespace {

namespace fs = std::filesystem;

constexpr char kUploads[] = "uploads";
constexpr std::string_view kRecordExtension = ".job";
constexpr size_t kMaxRecordBytes = size_t{256} << 20;
constexpr size_t kMaxEndedJobs = 1000;

// The number that a file's name begins with. 0: none.
uint64_t NumberOf(const fs::path& file) {
  const std::string name = file.stem().string();
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  return error == std::errc() && end == name.data() + name.size() ? number : 0;
}

// ".pdf" of "A letter.PDF"; empty where what follows the dot is no plain word.
std::string SafeExtension(const std::string& client_name) {
  constexpr size_t kMaxChars = 12;
  const size_t dot = client_name.rfind('.');
  if (dot == std::string::npos) return "";
  std::string extension = client_name.substr(dot);
  if (extension.size() < 2 || extension.size() > kMaxChars) return "";
  for (size_t i = 1; i < extension.size(); ++i) {
    const auto c = static_cast<unsigned char>(extension[i]);
    if (c >= 0x80 || std::isalnum(c) == 0) return "";
    extension[i] = static_cast<char>(std::tolower(c));
  }
  return extension;
}

}  // namespace

UploadFile::UploadFile(UploadFile&& other) noexcept
    : path_(std::exchange(other.path_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_bytes_(other.size_bytes_) {}

UploadFile::~UploadFile() {
  if (descriptor_ >= 0) close(descriptor_);
  std::error_code ignored;
  if (!path_.empty()) fs::remove(path_, ignored);
}

absl::Status UploadFile::Write(std::string_view bytes) {
  size_bytes_ += bytes.size();
  while (!bytes.empty()) {
    const ssize_t n = write(descriptor_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoToStatus(errno, "write", path_);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status UploadFile::Close() {
  const bool is_synced = fsync(descriptor_) == 0;
  const int error = errno;
  close(std::exchange(descriptor_, -1));
  return is_synced ? absl::OkStatus() : ErrnoToStatus(error, "sync", path_);
}

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const fs::path& memory_folder) {
  std::error_code error;
  const fs::path absolute = fs::absolute(memory_folder, error);
  if (error) return ErrnoToStatus(error.value(), "find", memory_folder);
  std::unique_ptr<JobStore> store(new JobStore(absolute / "jobs"));
  RETURN_IF_ERROR(CreateDirectories(store->folder_ / kUploads));
  RETURN_IF_ERROR(SyncPath(memory_folder));
  RETURN_IF_ERROR(store->Load());
  RETURN_IF_ERROR(store->RemoveForgottenUploads());
  return store;
}

absl::Status JobStore::Load() {
  std::error_code error;
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    files.push_back(entry.path());
  }
  if (error) return ErrnoToStatus(error.value(), "list", folder_);
  for (const fs::path& file : files) {
    const std::string extension = file.extension().string();
    const uint64_t number =
        NumberOf(file.filename().string().substr(0, file.filename().string().find('.')));
    // An id that was ever given is not given again, whatever became of its record.
    next_id_ = std::max(next_id_, number + 1);
    std::error_code ignored;
    if (extension != kRecordExtension) {
      // What an interrupted write left behind.
      if (extension.starts_with(".tmp")) fs::remove(file, ignored);
      continue;
    }
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file, kMaxRecordBytes));
    absl::StatusOr<Job> job = DecodeJob(bytes, file.native());
    if (job.ok() && job->id != number) {
      job = absl::DataLossError(StrCat(file, ": holds the record of job ", job->id));
    }
    if (!job.ok()) {
      const fs::path aside = file.native() + ".damaged";
      fs::rename(file, aside, error);
      if (error) return ErrnoToStatus(error.value(), "rename", file);
      damages_.push_back(StrCat(job.status().message(), "; it is ", aside, " now"));
      continue;
    }
    if (job->state == JobState::kRunning) job->state = JobState::kWaiting;
    jobs_.emplace(job->id, *std::move(job));
  }
  return absl::OkStatus();
}

absl::Status JobStore::RemoveForgottenUploads() {
  std::set<std::string> needed;
  for (const auto& [id, job] : jobs_) {
    if (job.has_ended()) continue;
    for (const Upload& upload : job.uploads) needed.insert(upload.file);
  }
  std::error_code error;
  std::vector<fs::path> forgotten;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_ / kUploads, error)) {
    const std::string name = entry.path().filename().string();
    next_upload_ = std::max(next_upload_, NumberOf(name) + 1);
    // A job whose record is damaged may need any of them.
    if (!needed.contains(name) && damages_.empty()) forgotten.push_back(entry.path());
  }
  if (error) return ErrnoToStatus(error.value(), "list", folder_ / kUploads);
  for (const fs::path& file : forgotten) fs::remove(file, error);
  return absl::OkStatus();
}

fs::path JobStore::PathOf(uint64_t id) const { return folder_ / StrCat(id, kRecordExtension); }

fs::path JobStore::UploadPath(const Upload& upload) const {
  return folder_ / kUploads / upload.file;
}

absl::StatusOr<UploadFile> JobStore::CreateUpload(const std::string& client_name) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = next_upload_++;
  }
  fs::path path = folder_ / kUploads / StrCat(number, SafeExtension(client_name));
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) return ErrnoToStatus(errno, "create", path);
  return UploadFile(std::move(path), descriptor);
}

absl::StatusOr<Job> JobStore::Add(Job job, std::vector<UploadFile> files) {
  if (!files.empty()) RETURN_IF_ERROR(SyncPath(folder_ / kUploads));
  const std::lock_guard lock(mutex_);
  job.id = next_id_++;
  job.created_unix_s = static_cast<int64_t>(std::time(nullptr));
  RETURN_IF_ERROR(WriteFileAtomic(PathOf(job.id), EncodeJob(job)));
  for (UploadFile& file : files) file.path_.clear();
  jobs_[job.id] = job;
  ForgetOldest();
  return job;
}

absl::Status JobStore::Update(const Job& job) {
  const std::lock_guard lock(mutex_);
  jobs_[job.id] = job;
  RETURN_IF_ERROR(WriteFileAtomic(PathOf(job.id), EncodeJob(job)));
  if (!job.has_ended()) return absl::OkStatus();
  std::error_code ignored;  // the next start removes what stays
  for (const Upload& upload : job.uploads) fs::remove(UploadPath(upload), ignored);
  return absl::OkStatus();
}

void JobStore::Show(const Job& job) {
  const std::lock_guard lock(mutex_);
  jobs_[job.id] = job;
}

std::optional<Job> JobStore::Find(uint64_t id) const {
  const std::lock_guard lock(mutex_);
  const auto job = jobs_.find(id);
  return job == jobs_.end() ? std::nullopt : std::optional(job->second);
}

std::vector<Job> JobStore::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<Job> jobs;
  for (const auto& [id, job] : jobs_) jobs.push_back(job);
  return jobs;
}

std::optional<Job> JobStore::NextWaiting() const {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, job] : jobs_) {
    if (job.state == JobState::kWaiting) return job;
  }
  return std::nullopt;
}

std::map<JobState, size_t> JobStore::CountByState() const {
  const std::lock_guard lock(mutex_);
  std::map<JobState, size_t> counts;
  for (const auto& [id, job] : jobs_) ++counts[job.state];
  return counts;
}

void JobStore::ForgetOldest() {
  const auto n_ended = static_cast<size_t>(std::count_if(
      jobs_.begin(), jobs_.end(), [](const auto& entry) { return entry.second.has_ended(); }));
  if (n_ended <= kMaxEndedJobs) return;
  const auto oldest = std::find_if(jobs_.begin(), jobs_.end(),
                                   [](const auto& entry) { return entry.second.has_ended(); });
  std::error_code ignored;
  fs::remove(PathOf(oldest->first), ignored);
  jobs_.erase(oldest);
}

}  // namespace fovea::serve
