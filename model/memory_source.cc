#include "model/memory_source.h"

namespace fovea::model {

void MemorySource::AttendTogether(std::span<MemoryRequest> requests) {
  for (MemoryRequest& request : requests) {
    request.status = request.memory->Attend(request.query, request.output, request.lse);
  }
}

}  // namespace fovea::model
