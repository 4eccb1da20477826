#include "memory/upkeep/delete_documents.h"

#include <algorithm>
#include <set>

namespace fovea::memory {
namespace {

// Before anything is deleted, and not looked at after that: what somebody looks at is not freed.
absl::StatusOr<std::set<storage::DocumentNumber>> FindAll(
    const Memory& memory, const std::vector<std::string>& ids,
    const std::vector<std::string>& collections) {
  const auto generation = memory.Current();
  RETURN_IF_ERROR(CheckCollections(*generation, collections));
  std::set<storage::DocumentNumber> numbers;
  for (const std::string& id : ids) {
    ASSIGN_OR_RETURN(const storage::DocumentRecord* document, FindDocument(*generation, id));
    numbers.insert(document->number);
  }
  return numbers;
}

}  // namespace

absl::Status CheckCollections(const Generation& generation,
                              const std::vector<std::string>& collections) {
  for (const std::string& name : collections) {
    const bool known =
        std::any_of(generation.documents.begin(), generation.documents.end(),
                    [&](const storage::DocumentRecord& document) { return document.IsIn(name); });
    if (!known) {
      return absl::NotFoundError(
          StrCat("no document is in collection \"", name, "\"; `fovea stats` lists collections"));
    }
  }
  return absl::OkStatus();
}

Memory::Removed DeleteDocuments(Memory* memory, const std::vector<std::string>& ids,
                                const std::vector<std::string>& collections,
                                const Progress& progress) {
  const auto numbers = FindAll(*memory, ids, collections);
  if (!numbers.ok()) return {.gone = {}, .status = numbers.status()};
  return memory->RemoveForGood(
      [&](const storage::DocumentRecord& document, const storage::SourceReference& source) {
        return numbers->contains(document.number) ||
               std::find(collections.begin(), collections.end(), source.collection) !=
                   collections.end();
      },
      progress);
}

}  // namespace fovea::memory
