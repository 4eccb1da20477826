// Documents → windows → keys and values → store. A document becomes visible when all of it is
// committed; windows whose content did not change since an earlier version are not encoded again;
// an interrupted ingest goes on where it was. Memory use does not depend on the size of a document.
//
//   ASSIGN_OR_RETURN(auto ingester, Ingester::Create(memory, model, options));
//   RETURN_IF_ERROR(ingester->Add(*document, "default"));
//   RETURN_IF_ERROR(ingester->Finish());     // everything reported so far is durable
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/progress.h"
#include "compute/device.h"
#include "documents/text_document.h"
#include "memory/ingest/ingested_document.h"
#include "memory/ingest/text_identity.h"
#include "memory/memory.h"
#include "model/transformer.h"

namespace fovea::memory {

struct IngestOptions {
  // Of the memory's first ingest; later ones must agree or leave them unset (0, "").
  std::string model_name;  // remembered in the settings
  std::string adapter_name;
  int window = 0;
  int overlap = -1;
  std::string encoding;
  std::string index_spec;
  // Windows (also of several documents) are encoded together once they have so many tokens; 0: as
  // many as suit the device.
  int encode_batch_tokens = 0;
  // A source that was added with one text already fails with another one, instead of replacing it:
  // for those who add each source once, where two of one name are two texts.
  bool one_text_per_source = false;
  // Takes collections whose names documents::CheckCollectionName refuses: for what an earlier
  // release has stored in such.
  bool any_collection_name = false;
  // What windows are encoded with; null: the model's own, which nothing else may use until Finish
  // returns or the ingester is gone: a GPU encodes while the next documents are read.
  // With one more of its kind, which outlives the ingester, the model may answer questions at the
  // same time.
  compute::Device* device = nullptr;
  Progress progress;
  // Called when a document is durable, or has failed. From the thread that calls Add or Finish.
  std::function<void(const IngestedDocument&)> on_document;
};

// Not thread-safe. Destroying it without Finish loses only what was not reported yet.
class Ingester {
 public:
  // `memory` is open for writing; both outlive the ingester. Sets the memory's settings on the
  // first use. FailedPrecondition when the model is not the memory's, or an option contradicts it.
  static absl::StatusOr<std::unique_ptr<Ingester>> Create(Memory* memory, model::Transformer* model,
                                                          const IngestOptions& options);
  virtual ~Ingester() = default;

  // Problems of the document itself are reported through on_document with kFailed; an error
  // returned here (full disk, damage, cancelled) ends the ingest. InvalidArgument for a
  // `collection` that cannot be called so (documents/names.h); nothing was done then. The
  // document's source refers to its text from then on, in `collection` or in the one that the
  // document names; a text that no source refers to goes. Where the text is stored already only the
  // references change.
  virtual absl::Status Add(documents::TextDocument& document, const std::string& collection) = 0;
  // Takes away the sources that `is_gone` names, of all collections, but for those that were added
  // since Create. A source that was added in one collection refers to the same text in the others
  // then. Reports each as kRemoved once that is durable.
  virtual absl::Status RemoveSources(
      absl::FunctionRef<bool(const std::string& source)> is_gone) = 0;
  // Encodes and commits what is pending, seals full segments, updates the text index, publishes.
  virtual absl::Status Finish() = 0;
};

}  // namespace fovea::memory
