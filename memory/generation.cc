#include "memory/generation.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "documents/utf8.h"
#include "model/transformer.h"

namespace fovea::memory {
namespace {

constexpr size_t kMinPrefixDigits = 6;

absl::StatusOr<uint32_t> FindDocumentIndex(const Generation& generation, const std::string& id) {
  const auto& documents = generation.documents;
  std::vector<uint32_t> matches;
  for (uint32_t i = 0; i < documents.size(); ++i) {
    if (documents[i].id == id) return i;
    if (id.size() >= kMinPrefixDigits && documents[i].id.starts_with(id)) matches.push_back(i);
  }
  if (matches.size() == 1) return matches.front();
  if (matches.size() > 1) {
    return absl::InvalidArgumentError(
        StrCat("document ", id, ": ", matches.size(),
               " documents have ids that begin so; give more digits"));
  }
  return absl::NotFoundError(StrCat("document ", id,
                                    ": not in this memory (`fovea docs list` shows ",
                                    "the ids; at least ", kMinPrefixDigits, " digits are needed)"));
}

}  // namespace

const LiveWindow* Generation::FindWindow(Slot slot) const {
  auto it = std::upper_bound(windows.begin(), windows.end(), slot,
                             [](Slot s, const LiveWindow& w) { return s < w.slot_begin; });
  if (it == windows.begin()) return nullptr;
  --it;
  return slot < it->slot_begin + it->n_tokens ? &*it : nullptr;
}

absl::Status CheckModel(const Generation& generation, const model::Transformer& model) {
  const std::optional<storage::StoreSettings>& settings = generation.settings;
  if (!settings) return absl::OkStatus();
  const std::filesystem::path& folder = generation.source->memory_folder();
  if (settings->fingerprint != model.fingerprint()) {
    return absl::FailedPreconditionError(
        StrCat(folder, ": was made by model ", settings->fingerprint, " (", settings->model,
               settings->adapter.empty() ? "" : StrCat(" with adapter ", settings->adapter),
               "), opened with ", model.fingerprint(),
               ": pass the first model and its adapter (--model PATH, --adapter DIR or none), or "
               "convert the memory with `fovea rebuild --reencode`"));
  }
  if (settings->entry_type == EntryType::kFloat32 &&
      model.memory_config().entry_type != EntryType::kFloat32) {
    return absl::FailedPreconditionError(
        StrCat(folder, ": keeps entries in float32, the model's config.json now says mem_dtype ",
               EntryTypeName(model.memory_config().entry_type),
               ": put float32 back there, or convert the memory with `fovea rebuild --reencode`"));
  }
  return absl::OkStatus();
}

absl::StatusOr<storage::WindowRecord> ReadWindow(const Generation& generation, Slot slot_begin) {
  return generation.source->store().GetWindow(slot_begin, generation.hold.get());
}

absl::Status ReadText(const Generation& generation, const storage::DocumentRecord& document,
                      absl::FunctionRef<absl::Status(std::string_view)> visit) {
  const storage::DocumentStore& store = generation.source->store();
  ASSIGN_OR_RETURN(const std::vector<storage::WindowLink> links, store.Links(document.number));
  for (const storage::WindowLink& link : links) {
    ASSIGN_OR_RETURN(const storage::WindowRecord window, ReadWindow(generation, link.slot_begin));
    RETURN_IF_ERROR(visit(window.text));
  }
  return absl::OkStatus();
}

absl::StatusOr<TextRange> ReadTextRange(const Generation& generation,
                                        const storage::DocumentRecord& document, uint64_t start,
                                        std::optional<uint64_t> end) {
  const uint64_t last = end.value_or(document.size_bytes);
  if (start > last || last > document.size_bytes) {
    return absl::InvalidArgumentError(StrCat("bytes ", start, " to ", last,
                                             ": want a range of the document's ",
                                             document.size_bytes, " bytes"));
  }
  ASSIGN_OR_RETURN(const std::vector<storage::WindowLink> links,
                   generation.source->store().Links(document.number));
  TextRange range;
  for (size_t i = 0; i < links.size(); ++i) {
    const uint64_t begin = links[i].byte_begin;
    const uint64_t next = i + 1 < links.size() ? links[i + 1].byte_begin : document.size_bytes;
    if (next <= start || begin >= last) continue;
    ASSIGN_OR_RETURN(const storage::WindowRecord window,
                     ReadWindow(generation, links[i].slot_begin));
    const uint64_t first = std::max(begin, start) - begin;
    range.text += std::string_view(window.text).substr(first, std::min(next, last) - begin - first);
  }
  const auto is_inner = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
  size_t n_cut = 0;
  while (start > 0 && n_cut < range.text.size() && n_cut < 3 && is_inner(range.text[n_cut])) {
    ++n_cut;
  }
  range.text.erase(0, n_cut);
  range.text.resize(documents::ScanUtf8(range.text).valid_bytes);
  range.start = start + n_cut;
  range.end = range.start + range.text.size();
  return range;
}

absl::StatusOr<const storage::DocumentRecord*> FindDocument(const Generation& generation,
                                                            const std::string& id_prefix) {
  ASSIGN_OR_RETURN(const uint32_t index, FindDocumentIndex(generation, id_prefix));
  return &generation.documents[index];
}

absl::StatusOr<std::vector<uint32_t>> SelectWindows(const Generation& generation,
                                                    const QueryScope& scope) {
  std::vector<bool> allowed(generation.documents.size(), true);
  if (!scope.collections.empty()) {
    for (const std::string& name : scope.collections) {
      const bool known = std::any_of(generation.documents.begin(), generation.documents.end(),
                                     [&](const auto& document) { return document.IsIn(name); });
      if (!known) {
        return absl::NotFoundError(StrCat("collection \"", name,
                                          "\": no document is in it (`fovea stats` lists the ",
                                          "collections)"));
      }
    }
    for (size_t i = 0; i < allowed.size(); ++i) {
      allowed[i] =
          std::any_of(scope.collections.begin(), scope.collections.end(),
                      [&](const std::string& name) { return generation.documents[i].IsIn(name); });
    }
  }
  if (!scope.documents.empty()) {
    absl::flat_hash_set<uint32_t> named;
    for (const std::string& id : scope.documents) {
      ASSIGN_OR_RETURN(const uint32_t index, FindDocumentIndex(generation, id));
      named.insert(index);
    }
    for (uint32_t i = 0; i < allowed.size(); ++i) allowed[i] = allowed[i] && named.contains(i);
  }
  std::vector<uint32_t> windows;
  for (uint32_t w = 0; w < generation.windows.size(); ++w) {
    if (allowed[generation.windows[w].document]) windows.push_back(w);
  }
  return windows;
}

}  // namespace fovea::memory
