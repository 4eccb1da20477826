#include "python/opened_memory.h"

#include <unistd.h>

#include <chrono>
#include <set>
#include <thread>
#include <utility>

namespace fovea::python {
namespace {

// What CloseAll closes. Never destroyed: memories may outlive it otherwise.
struct Registry {
  std::mutex mutex;
  std::set<OpenedMemory*> opened;
};
Registry& AllOpened() {
  static Registry* const registry = new Registry;
  return *registry;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const memory::Generation>> Engine::View() {
  RETURN_IF_ERROR(fovea->memory().Refresh().status());
  return fovea->memory().Current();
}

absl::StatusOr<compute::Device*> Engine::DeviceForChanges() {
  if (read_only) {
    return absl::FailedPreconditionError(
        StrCat(fovea->memory().folder().native(),
               ": this memory was opened with read_only=True; open it without, to change it"));
  }
  if (device == nullptr) {
    compute::Device* const asking = fovea->model().device();
    ASSIGN_OR_RETURN(device, asking->CreateAnother(asking->threads().n_threads()));
  }
  return device.get();
}

OpenedMemory::OpenedMemory(answer::FoveaOptions options)
    : options_(std::move(options)), process_(getpid()) {
  const std::lock_guard lock(AllOpened().mutex);
  AllOpened().opened.insert(this);
}

void OpenedMemory::CloseAll() {
  const std::lock_guard lock(AllOpened().mutex);
  for (OpenedMemory* const memory : AllOpened().opened) {
    if (memory->process_ == getpid()) memory->Close();
  }
}

absl::StatusOr<std::unique_ptr<OpenedMemory>> OpenedMemory::Open(
    const answer::FoveaOptions& options) {
  std::unique_ptr<OpenedMemory> opened(new OpenedMemory(options));
  auto engine = std::make_shared<Engine>();
  engine->read_only = options.read_only;
  ASSIGN_OR_RETURN(engine->fovea, answer::Fovea::Open(options));
  opened->engine_ = std::move(engine);
  return opened;
}

OpenedMemory::~OpenedMemory() {
  {
    const std::lock_guard lock(AllOpened().mutex);
    AllOpened().opened.erase(this);
  }
  if (getpid() == process_) {
    Close();
  } else {
    // Never freed: its destructor would wait for threads that this process does not have.
    new std::shared_ptr<Engine>(std::move(engine_));
  }
}

absl::StatusOr<std::shared_ptr<Engine>> OpenedMemory::engine() const {
  if (getpid() != process_) {
    return absl::FailedPreconditionError(
        StrCat(options_.memory.native(), ": this memory was opened by process ", process_,
               ", and this one, ", getpid(),
               ", is a copy that os.fork() made; open the memory in each process by itself (with "
               "multiprocessing: in the worker, or with the start method \"spawn\")"));
  }
  const std::lock_guard lock(mutex_);
  if (engine_ == nullptr) {
    return absl::FailedPreconditionError(
        StrCat(options_.memory.native(),
               ": this memory was closed (by close(), or at the end of its with statement); open "
               "it again with Memory.open"));
  }
  return engine_;
}

void OpenedMemory::Track(std::shared_ptr<AnyTask> task) {
  const std::lock_guard lock(mutex_);
  std::erase_if(tasks_, [](const auto& known) { return known.expired(); });
  if (engine_ == nullptr) task->CancelByClose();  // it was closed while the task began
  tasks_.push_back(std::move(task));
}

void OpenedMemory::Close() {
  std::shared_ptr<Engine> engine;
  std::vector<std::weak_ptr<AnyTask>> tasks;
  {
    const std::lock_guard lock(mutex_);
    engine = std::exchange(engine_, nullptr);
    tasks = std::exchange(tasks_, {});
  }
  std::vector<std::shared_ptr<AnyTask>> running;
  for (const auto& task : tasks) {
    if (auto known = task.lock(); known != nullptr) running.push_back(std::move(known));
  }
  for (const auto& task : running) task->CancelByClose();
  for (const auto& task : running) task->Join();
  // A short call of another thread may still look at something.
  const std::weak_ptr<Engine> left = engine;
  engine.reset();
  while (!left.expired()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

bool OpenedMemory::is_closed() const {
  const std::lock_guard lock(mutex_);
  return engine_ == nullptr;
}

}  // namespace fovea::python
