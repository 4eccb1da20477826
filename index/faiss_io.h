// FAISS's bytes of a structure, to a sink and from memory. Exceptions are FAISS's.
#pragma once

#include <faiss/Index.h>

#include <memory>
#include <string_view>

#include "index/index_file.h"

namespace fovea::index {

// *sink_status = what the sink said; where that is an error FAISS throws, too.
void WriteFaiss(const faiss::Index* index, BlobSink sink, absl::Status* sink_status);

// Takes what it reads off the front of *bytes.
std::unique_ptr<faiss::Index> ReadFaiss(std::string_view* bytes);

}  // namespace fovea::index
