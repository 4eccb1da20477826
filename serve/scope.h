// What of a memory a key may see: everything that a request names is looked up among that.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "memory/generation.h"
#include "memory/search/attribution.h"
#include "serve/api_keys.h"

namespace fovea::serve {

// `wanted` as far as `access` allows it; never wider. NotFound for collections and documents that
// are not there or must not be seen, in the same words; FailedPrecondition where nothing may be
// seen.
absl::StatusOr<memory::QueryScope> Narrow(const memory::Generation& generation,
                                          const Access& access, memory::QueryScope wanted);

// The document with those of its sources that may be seen; unset: none may. Equal texts are stored
// once: when that was (ingested_unix_s) tells of others' collections, too, and is 0 where not all
// may be seen. (So does its number, which is told to nobody.)
std::optional<storage::DocumentRecord> Visible(const storage::DocumentRecord& document,
                                               const Access& access);
// All that may be seen: as they were stored, or by their sources where not all may be seen, since
// that order tells when, too.
std::vector<storage::DocumentRecord> AllVisible(const memory::Generation& generation,
                                                const Access& access);
// By its id or a beginning of it (at least 6 digits) that no other visible document has. NotFound,
// InvalidArgument.
absl::StatusOr<storage::DocumentRecord> FindVisible(const memory::Generation& generation,
                                                    const Access& access, const std::string& id);

// Takes out of passages the names of sources that must not be seen.
void HideOthers(const memory::Generation& generation, const Access& access,
                std::vector<memory::Passage>* passages);

}  // namespace fovea::serve
