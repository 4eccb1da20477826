// What an ingest would do, without a model and without writing anything: `ingest --dry-run`.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "base/progress.h"
#include "base/status.h"
#include "documents/text_document.h"
#include "memory/ingest/ingester.h"
#include "memory/ingest/source_table.h"

namespace fovea::cli {

// Not thread-safe.
class IngestPlan {
 public:
  // Of a memory as it is now; null: one that is still to be made.
  explicit IngestPlan(const memory::Memory* memory);

  // What Ingester::Add would report. Tokens and windows are those of texts that are stored already.
  absl::StatusOr<memory::IngestedDocument> Add(documents::TextDocument& document,
                                               const std::string& collection,
                                               const Progress& progress);
  // What Ingester::RemoveSources would report.
  std::vector<memory::IngestedDocument> RemoveSources(
      absl::FunctionRef<bool(const std::string& source)> is_gone);

 private:
  memory::SourceTable table_;
  memory::SourceTable::SeenSources seen_;
};

}  // namespace fovea::cli
