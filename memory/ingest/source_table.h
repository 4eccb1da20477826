// Which sources refer to which documents, as a writer knows it: what is stored and what the next
// commit will add. A document is content; a source (a path or a record's id, in a collection)
// refers to one document at a time, and a document that no source refers to goes.
//
// Not thread-safe.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "base/status.h"
#include "storage/records.h"

namespace fovea::memory {

class SourceTable {
 public:
  using Document = storage::DocumentRecord;
  using Reference = storage::SourceReference;

  // A complete document as it is stored.
  void Load(Document document);
  // A document that becomes complete with the next commit, without sources.
  void Insert(Document document);

  // The document with this content; null: none.
  const Document* Find(const std::string& id) const;
  // The document that this source refers to in this collection; null: none.
  const Document* Holder(const std::string& source, const std::string& collection) const;
  // Whether Refer would change nothing.
  bool Refers(const std::string& id, const Reference& reference) const;

  // Whether no reference of `document` is of this source in this collection.
  static bool IsNewSource(const Document& document, const Reference& reference);

  // Makes `reference` refer to the document `id`, which is there, and to no other one when it is
  // replaceable. `in_no_other_collection`: the source itself says in which one it is.
  void Refer(const std::string& id, const Reference& reference, bool in_no_other_collection);

  // Takes away the references whose source `is_gone` names, but for sources that were seen: those
  // refer to the last document that was seen for them, in all collections. `seen`: source → id.
  // Returns what was taken away, by source.
  using SeenSources = absl::flat_hash_map<std::string, std::string>;
  // InvalidArgument: `source` was seen with another text than that of `id`.
  static absl::Status CheckOneText(const SeenSources& seen, const std::string& source,
                                   const std::string& id);
  std::vector<std::pair<Document, Reference>> RemoveUnseen(
      const SeenSources& seen, absl::FunctionRef<bool(const std::string& source)> is_gone);

  struct Changes {
    std::vector<Document> updated;
    // With the sources that they had last; no longer in the table.
    std::vector<Document> unreferenced;
  };
  // All since the last call, by document number.
  Changes TakeChanges();

 private:
  using Key = std::pair<std::string, std::string>;  // source, collection

  void Remove(const std::string& id, const Reference& reference);

  absl::flat_hash_map<std::string, Document> by_id_;
  std::map<Key, std::string> id_by_source_;  // of replaceable references
  struct Before {
    bool is_new = false;                  // inserted since the last TakeChanges
    std::vector<Reference> sources = {};  // that a stored record has, or had last
  };
  std::map<std::string, Before> changed_;  // by document id
};

}  // namespace fovea::memory
