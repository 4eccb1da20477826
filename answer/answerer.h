// Questions → answers with sources: prompt, re-reading, generation and attribution in one place,
// used by the command line, the example and the server.
//
//   ASSIGN_OR_RETURN(auto answerer, Answerer::Create(device.get(), model.get(), memory.get()));
//   Request request;
//   request.messages = {{Role::kSystem, "Answer in French."}, {Role::kUser, "Who left the key?"}};
//   ASSIGN_OR_RETURN(const Answer answer, answerer->Run(request));
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "answer/request.h"
#include "answer/shared_model.h"
#include "base/status.h"
#include "compute/device.h"
#include "memory/memory.h"
#include "model/transformer.h"

namespace fovea::answer {

// Holds borrowed parts. Thread-safe: any number of threads put requests to one Answerer at a time.
// Each request sees the memory as it is when it begins, and gets the answer that it would get
// alone; their steps go through the model together (shared_model.h). While requests run nothing
// else may use the device, nor the model with it.
class Answerer {
 public:
  // `memory` may be null (no memory). FailedPrecondition when it was made by another model.
  static absl::StatusOr<std::unique_ptr<Answerer>> Create(compute::Device* device,
                                                          model::Transformer* model,
                                                          memory::Memory* memory);
  virtual ~Answerer() = default;

  // InvalidArgument for a request that makes no sense, OutOfRange for a question that does not fit
  // into the model's window, FailedPrecondition where there is nothing to answer from. A request
  // that is cancelled is no error: the answer so far, whose finish_reason says so.
  virtual absl::StatusOr<Answer> Run(const Request& request) const = 0;

  // Several requests, as many at a time as go through the model together; an answer or an error for
  // each, in their order. No two of them may name the same conversation.
  virtual std::vector<absl::StatusOr<Answer>> RunAll(std::span<const Request> requests) const = 0;

  // The passages that a question would read again (Passage::score: what they are ranked by), best
  // first. Errors are those of Run, and Cancelled.
  virtual absl::StatusOr<std::vector<memory::Passage>> Search(
      const SearchRequest& request) const = 0;

  // How the steps of all requests so far went through the model.
  virtual SharedModel::Statistics statistics() const = 0;

  // A request with one message, as the next of `conversation` unless that is null.
  absl::StatusOr<Answer> Ask(const std::string& question, const AskOptions& options,
                             const StreamCallback& stream, const Progress& progress,
                             Conversation* conversation = nullptr) const;

  // For people, when the model was not trained for memory ("… has no adapter: …"), what questions
  // with these options are answered from; else empty.
  virtual std::string Hint(const AskOptions& options) const = 0;
};

}  // namespace fovea::answer
