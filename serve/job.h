// Work on a memory that takes longer than a request: ingests and rebuilds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "answer/json.h"
#include "base/progress.h"
#include "base/status.h"
#include "memory/ingest/ingested_document.h"

namespace fovea::serve {

using answer::Json;

// A file of a client's, as it was received.
struct Upload {
  std::string file;  // its name among the uploads (job_store.h), nothing a client has chosen
  // What the client calls it: in one line. Its documents' source is "upload:" and this.
  std::string name;
  bool is_text = false;  // the text itself, not a file of some format; name is its title then
  uint64_t size_bytes = 0;
};

enum class JobKind { kIngest, kRebuild };
// kFailed: an ingest, too, that could store none of its documents. One that could store some is
// done, and `documents` says which failed.
enum class JobState { kWaiting, kRunning, kDone, kFailed, kCancelled };
std::string_view JobKindName(JobKind kind);     // "ingest", "rebuild"
std::string_view JobStateName(JobState state);  // "waiting", …

struct Job {
  uint64_t id = 0;  // grows, and is never used again
  JobKind kind = JobKind::kIngest;
  JobState state = JobState::kWaiting;
  std::string collection;       // of an ingest
  std::vector<Upload> uploads;  // of an ingest
  std::string index;            // of a rebuild: its specification, empty: the memory's
  int64_t created_unix_s = 0;
  int64_t ended_unix_s = 0;  // 0: not yet
  // What became of the documents, once each is durable. A job that goes on after a restart names
  // those that were stored before it as unchanged.
  std::vector<memory::IngestedDocument> documents;
  std::vector<std::string> warnings;  // what of the documents is not stored
  std::string error;                  // of kFailed: where all documents failed, the first errors
  // Of kRunning; not stored.
  ProgressUpdate progress;
  size_t n_files_done = 0;

  bool has_ended() const { return state >= JobState::kDone; }
};

// For clients. `with_documents`: up to kMaxShownDocuments of them, not their counts alone.
inline constexpr size_t kMaxShownDocuments = 1000;
Json ToJson(const Job& job, bool with_documents);

// As a job is stored. Decoding never trusts what it reads: DataLoss says what is wrong.
std::string EncodeJob(const Job& job);
absl::StatusOr<Job> DecodeJob(std::string_view bytes, std::string_view name);

}  // namespace fovea::serve
