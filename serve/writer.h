// The one thread that changes the memory: it carries out jobs, one after the other, and short
// changes (deletions) between their steps. Questions go on meanwhile, and have the processors
// first.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "answer/fovea.h"
#include "base/status.h"
#include "compute/device.h"
#include "serve/job_store.h"

namespace fovea::serve {

class IngestReport;

// Thread-safe.
class Writer {
 public:
  // `fovea` is open for writing; both outlive this, and nobody else changes the memory. Goes on
  // with the jobs that wait.
  //
  // Ingests are encoded on a device of their own, like the model's, by threads that the system
  // gives a processor only while questions leave it idle, or about a tenth of its time.
  static absl::StatusOr<std::unique_ptr<Writer>> Start(answer::Fovea* fovea, JobStore* jobs);
  // As Stop.
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Stores a job (JobStore::Add), which is begun when those before it have ended.
  absl::StatusOr<Job> Add(Job job, std::vector<UploadFile> files);
  // A job that waits never begins; one that runs ends at its next safe point, and what it has
  // stored by then stays. NotFound; FailedPrecondition for one that has ended.
  absl::StatusOr<Job> Cancel(uint64_t id);

  // Calls `change` on the writer's thread, before any other job goes on, and returns what it
  // returns. A job that runs is interrupted for it at its next safe point, and goes on from there.
  // Unavailable: it was stopped.
  absl::Status Change(std::function<absl::Status(memory::Memory&)> change);

  // Interrupts a job that runs; the next start goes on with it. Waits for that.
  void Stop();

 private:
  struct PendingChange {
    std::function<absl::Status(memory::Memory&)> change;
    absl::Status status;
    bool is_done = false;
  };

  Writer(answer::Fovea* fovea, JobStore* jobs) : fovea_(fovea), jobs_(jobs) {}
  absl::Status Prepare();
  void Work();
  void Carry(Job job);
  // Carries the job out, as far as it comes; *job gets what became of it.
  absl::Status Ingest(Job* job);
  absl::Status Rebuild(Job* job);
  // Reads the files, all but a part of which may be stored already.
  absl::Status AddUploads(Job* job, IngestReport* report, memory::Ingester* ingester);
  Progress ProgressOf(Job* job);
  // Shows the job to others, not more often than it is worth it.
  void Show(const Job& job);

  answer::Fovea* const fovea_;
  JobStore* const jobs_;
  std::unique_ptr<compute::Device> device_;
  std::atomic<bool> interrupted_{false};            // the running job is to come to a safe point
  std::chrono::steady_clock::time_point shown_at_;  // by the thread alone

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<PendingChange*> changes_;
  uint64_t running_id_ = 0;        // 0: none
  std::set<uint64_t> cancelling_;  // jobs that are not to go on
  bool is_stopped_ = false;
  absl::Status prepared_;
  bool is_prepared_ = false;
  std::thread thread_;
};

}  // namespace fovea::serve
