// The errors that every reader of documents words alike.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace fovea::documents {

// `bytes` stop being text at `at`; they begin at byte `offset` of what `name` names.
absl::Status NotTextError(std::string_view name, std::string_view bytes, size_t at,
                          uint64_t offset);

// `why` may be empty: then it is of the kind "empty file" (file_kind.h).
absl::Status EmptyError(std::string_view name, std::string_view why);

}  // namespace fovea::documents
