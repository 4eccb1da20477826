#include "storage/records.h"

#include <algorithm>

namespace fovea::storage {

std::vector<std::string> DocumentRecord::collections() const {
  std::vector<std::string> names;
  for (const SourceReference& source : sources) {
    if (std::find(names.begin(), names.end(), source.collection) == names.end()) {
      names.push_back(source.collection);
    }
  }
  return names;
}

bool DocumentRecord::IsIn(std::string_view collection) const {
  return std::any_of(sources.begin(), sources.end(), [&](const SourceReference& source) {
    return source.collection == collection;
  });
}

}  // namespace fovea::storage
