// The jobs of a memory, beside its store and under the same rules: what was reported as accepted is
// there after a crash, in the state that it was in.
//
//   DIR/jobs/ID.job        a record with its checksum, replaced whole when the job's state changes
//   DIR/jobs/uploads/N.*   files that a job has still to read; gone once it has ended
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "serve/job.h"

namespace fovea::serve {

// A file that is being received. Removed again with the object, unless a job took it.
class UploadFile {
 public:
  UploadFile(std::filesystem::path path, int descriptor)
      : path_(std::move(path)), descriptor_(descriptor) {}
  UploadFile(UploadFile&& other) noexcept;
  UploadFile& operator=(UploadFile&&) = delete;
  ~UploadFile();

  // ResourceExhausted for a full disk.
  absl::Status Write(std::string_view bytes);
  // To the disk.
  absl::Status Close();
  std::string name() const { return path_.filename().string(); }
  uint64_t size_bytes() const { return size_bytes_; }

 private:
  friend class JobStore;
  std::filesystem::path path_;  // empty: it is somebody else's now
  int descriptor_;
  uint64_t size_bytes_ = 0;
};

// Thread-safe. One process at a time: the memory's writer.
class JobStore {
 public:
  // `memory_folder` is that of a memory that is open for writing. Jobs that ran when the process
  // before this one ended wait again; files that no job needs are removed. A damaged record is set
  // aside under another name and said in damages().
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::filesystem::path& memory_folder);

  // A new file among the uploads. `client_name` gives nothing but its extension, which says how a
  // file is read.
  absl::StatusOr<UploadFile> CreateUpload(const std::string& client_name);
  std::filesystem::path UploadPath(const Upload& upload) const;

  // Gives the job an id and stores it with its files: both are durable when it returns. `files` are
  // those that job.uploads name.
  absl::StatusOr<Job> Add(Job job, std::vector<UploadFile> files);
  // Puts it in the place of its record. The files of a job that has ended are removed.
  absl::Status Update(const Job& job);
  // For progress, which is not stored.
  void Show(const Job& job);

  std::optional<Job> Find(uint64_t id) const;
  std::vector<Job> List() const;  // the oldest first
  std::optional<Job> NextWaiting() const;
  std::map<JobState, size_t> CountByState() const;

  const std::vector<std::string>& damages() const { return damages_; }

 private:
  explicit JobStore(std::filesystem::path folder) : folder_(std::move(folder)) {}
  absl::Status Load();
  absl::Status RemoveForgottenUploads();
  std::filesystem::path PathOf(uint64_t id) const;
  // Of jobs that have ended the newest are kept.
  void ForgetOldest();

  const std::filesystem::path folder_;
  std::vector<std::string> damages_;
  mutable std::mutex mutex_;  // guards what follows
  std::map<uint64_t, Job> jobs_;
  uint64_t next_id_ = 1;
  uint64_t next_upload_ = 1;
};

}  // namespace fovea::serve
