#include "memory/ingest/source_table.h"

#include <algorithm>

#include "base/status.h"

namespace fovea::memory {
namespace {

bool SameSource(const storage::SourceReference& a, const storage::SourceReference& b) {
  return a.source == b.source && a.collection == b.collection;
}

}  // namespace

absl::Status SourceTable::CheckOneText(const SeenSources& seen, const std::string& source,
                                       const std::string& id) {
  const auto known = seen.find(source);
  if (known == seen.end() || known->second == id) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat(source, ": another text of this ingest has the same name, which would be lost: give ",
             "each record an \"id\" of its own, and each file a name"));
}

void SourceTable::Load(Document document) {
  for (const Reference& reference : document.sources) {
    if (reference.replaceable) {
      id_by_source_[{reference.source, reference.collection}] = document.id;
    }
  }
  std::string id = document.id;
  by_id_.insert_or_assign(std::move(id), std::move(document));
}

void SourceTable::Insert(Document document) {
  FOVEA_CHECK(document.sources.empty());
  std::string id = document.id;
  changed_[id] = {.is_new = true};
  by_id_.insert_or_assign(std::move(id), std::move(document));
}

const SourceTable::Document* SourceTable::Find(const std::string& id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &found->second;
}

const SourceTable::Document* SourceTable::Holder(const std::string& source,
                                                 const std::string& collection) const {
  const auto found = id_by_source_.find({source, collection});
  return found == id_by_source_.end() ? nullptr : Find(found->second);
}

bool SourceTable::Refers(const std::string& id, const Reference& reference) const {
  const Document* document = Find(id);
  return document != nullptr && std::find(document->sources.begin(), document->sources.end(),
                                          reference) != document->sources.end();
}

bool SourceTable::IsNewSource(const Document& document, const Reference& reference) {
  return std::none_of(document.sources.begin(), document.sources.end(),
                      [&](const Reference& other) { return SameSource(other, reference); });
}

void SourceTable::Remove(const std::string& id, const Reference& reference) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  Before& before = changed_.try_emplace(id, Before{.sources = found->second.sources}).first->second;
  if (before.is_new) before.sources = found->second.sources;
  std::erase_if(found->second.sources,
                [&](const Reference& other) { return SameSource(other, reference); });
  const auto holder = id_by_source_.find({reference.source, reference.collection});
  if (holder != id_by_source_.end() && holder->second == id) id_by_source_.erase(holder);
}

void SourceTable::Refer(const std::string& id, const Reference& reference,
                        bool in_no_other_collection) {
  if (reference.replaceable) {
    std::vector<std::pair<std::string, Reference>> others;
    for (auto it = id_by_source_.lower_bound({reference.source, ""});
         it != id_by_source_.end() && it->first.first == reference.source; ++it) {
      const bool same_collection = it->first.second == reference.collection;
      if (same_collection ? it->second != id : in_no_other_collection) {
        others.push_back(
            {it->second, {.source = reference.source, .collection = it->first.second}});
      }
    }
    for (const auto& [other_id, other] : others) Remove(other_id, other);
    id_by_source_[{reference.source, reference.collection}] = id;
  }
  Document& document = by_id_.at(id);
  changed_.try_emplace(id, Before{.sources = document.sources});
  const auto same = std::find_if(document.sources.begin(), document.sources.end(),
                                 [&](const auto& other) { return SameSource(other, reference); });
  if (same == document.sources.end()) {
    document.sources.push_back(reference);
  } else {
    *same = reference;
  }
}

std::vector<std::pair<SourceTable::Document, SourceTable::Reference>> SourceTable::RemoveUnseen(
    const SeenSources& seen, absl::FunctionRef<bool(const std::string&)> is_gone) {
  std::vector<std::pair<Document, Reference>> gone;
  std::vector<std::pair<std::string, Reference>> moved;
  for (const auto& [id, document] : by_id_) {
    for (const Reference& reference : document.sources) {
      const auto found = seen.find(reference.source);
      if (found != seen.end() && found->second == id) continue;
      if (found != seen.end() && reference.replaceable) {
        moved.emplace_back(found->second, reference);
      } else if (is_gone(reference.source)) {
        gone.emplace_back(document, reference);
      }
    }
  }
  std::sort(gone.begin(), gone.end(), [](const auto& a, const auto& b) {
    return std::tie(a.second.source, a.second.collection) <
           std::tie(b.second.source, b.second.collection);
  });
  for (const auto& [document, reference] : gone) Remove(document.id, reference);
  for (const auto& [id, reference] : moved) Refer(id, reference, false);
  return gone;
}

SourceTable::Changes SourceTable::TakeChanges() {
  Changes changes;
  for (auto& [id, before] : changed_) {
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) continue;
    if (!before.is_new && found->second.sources == before.sources) continue;
    if (!found->second.sources.empty()) {
      changes.updated.push_back(found->second);
      continue;
    }
    changes.unreferenced.push_back(std::move(found->second));
    changes.unreferenced.back().sources = std::move(before.sources);
    by_id_.erase(found);
  }
  changed_.clear();
  for (auto* list : {&changes.updated, &changes.unreferenced}) {
    std::sort(list->begin(), list->end(),
              [](const Document& a, const Document& b) { return a.number < b.number; });
  }
  return changes;
}

}  // namespace fovea::memory
