#include "memory/upkeep/verify.h"

#include <utility>

#include "memory/upkeep/damage.h"

namespace fovea::memory {

absl::StatusOr<VerifyReport> Verify(compute::Device& device, Memory* memory,
                                    const VerifyOptions& options) {
  VerifyReport report;
  ASSIGN_OR_RETURN(std::vector<Damage> damage, FindDamage(memory, options.progress, &report));
  if (options.repair) {
    RETURN_IF_ERROR(RepairDamage(device, memory, options.model, options.progress, &damage));
  }
  for (Damage& found : damage) {
    const bool is_damage = found.repair != Repair::kFillText;
    (found.repaired ? report.repaired
     : is_damage    ? report.damaged
                    : report.notes)
        .push_back(std::move(found.finding));
  }
  report.ok = report.damaged.empty();
  return report;
}

}  // namespace fovea::memory
