#include "serve/scope.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace fovea::serve {
namespace {

using storage::DocumentRecord;

bool HasDocuments(const memory::Generation& generation, const std::string& collection) {
  return std::any_of(generation.documents.begin(), generation.documents.end(),
                     [&](const DocumentRecord& document) { return document.IsIn(collection); });
}

}  // namespace

absl::StatusOr<memory::QueryScope> Narrow(const memory::Generation& generation,
                                          const Access& access, memory::QueryScope wanted) {
  if (!access.is_limited()) return wanted;
  memory::QueryScope scope;
  for (std::string& name : wanted.collections) {
    if (!access.Allows(name) || !HasDocuments(generation, name)) {
      return absl::NotFoundError(StrCat("no document is in collection \"", name, "\""));
    }
    scope.collections.push_back(std::move(name));
  }
  if (scope.collections.empty()) {
    for (const std::string& name : *access.collections) {
      if (HasDocuments(generation, name)) scope.collections.push_back(name);
    }
  }
  // An empty list would mean all of them.
  if (scope.collections.empty()) {
    return absl::FailedPreconditionError(
        "the collections of this key hold no documents that the question could be answered from");
  }
  for (const std::string& id : wanted.documents) {
    ASSIGN_OR_RETURN(DocumentRecord document, FindVisible(generation, access, id));
    scope.documents.push_back(std::move(document.id));
  }
  return scope;
}

std::optional<DocumentRecord> Visible(const DocumentRecord& document, const Access& access) {
  DocumentRecord visible = document;
  if (access.is_limited()) {
    std::erase_if(visible.sources,
                  [&](const auto& source) { return !access.Allows(source.collection); });
    visible.ingested_unix_s = 0;
  }
  return visible.sources.empty() ? std::nullopt : std::optional(std::move(visible));
}

std::vector<DocumentRecord> AllVisible(const memory::Generation& generation, const Access& access) {
  std::vector<DocumentRecord> all;
  for (const DocumentRecord& document : generation.documents) {
    if (auto visible = Visible(document, access)) all.push_back(*std::move(visible));
  }
  if (access.is_limited()) {
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return std::tie(a.source(), a.id) < std::tie(b.source(), b.id);
    });
  }
  return all;
}

absl::StatusOr<DocumentRecord> FindVisible(const memory::Generation& generation,
                                           const Access& access, const std::string& id) {
  constexpr size_t kLeastDigits = 6;
  std::optional<DocumentRecord> found;
  if (id.size() >= kLeastDigits) {
    for (const DocumentRecord& document : generation.documents) {
      if (!document.id.starts_with(id)) continue;
      std::optional<DocumentRecord> visible = Visible(document, access);
      if (!visible.has_value()) continue;
      if (found.has_value()) {
        return absl::InvalidArgumentError(
            StrCat("more than one document's id begins with \"", id, "\": give more digits"));
      }
      found = std::move(visible);
    }
  }
  if (!found.has_value()) return absl::NotFoundError(StrCat("there is no document \"", id, "\""));
  return *std::move(found);
}

void HideOthers(const memory::Generation& generation, const Access& access,
                std::vector<memory::Passage>* passages) {
  if (!access.is_limited()) return;
  for (memory::Passage& passage : *passages) {
    const absl::StatusOr<DocumentRecord> document =
        FindVisible(generation, access, passage.document);
    std::erase_if(passage.other_sources, [&](const std::string& other) {
      return !document.ok() ||
             std::none_of(document->sources.begin(), document->sources.end(),
                          [&](const auto& source) { return source.source == other; });
    });
  }
}

}  // namespace fovea::serve
