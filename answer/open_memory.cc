#include "answer/open_memory.h"

#include <string>

namespace fovea::answer {

absl::StatusOr<std::unique_ptr<memory::Memory>> OpenMemory(const std::filesystem::path& folder,
                                                           storage::OpenMode mode, bool salvage) {
  const std::string& name = folder.native();
  if (!memory::Memory::Exists(folder)) {
    return absl::NotFoundError(StrCat(name, ": there is no memory here; make one with `fovea ",
                                      "ingest --memory ", name, " PATH`"));
  }
  memory::MemoryOptions options;
  options.mode = mode;
  options.salvage = salvage;
  ASSIGN_OR_RETURN(std::unique_ptr<memory::Memory> memory, memory::Memory::Open(folder, options));
  if (!memory->settings().has_value() && !salvage) {
    return absl::FailedPreconditionError(
        StrCat(name, ": this memory is empty; `fovea ingest --memory ", name, " PATH` fills it"));
  }
  return memory;
}

}  // namespace fovea::answer
