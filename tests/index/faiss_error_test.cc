// What a user reads where FAISS refuses something: what is wrong and what to do, and no part of
// FAISS's sources.
#include <faiss/impl/FaissException.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <new>
#include <stdexcept>
#include <string>

#include "base/file.h"
#include "base/hash.h"
#include "index/faiss_call.h"
#include "index/layer_index.h"
#include "tests/index/synthetic_keys.h"

// FAISS 1.7.3's index_factory loses the coarse quantiser of an IVF that it then refuses.
extern "C" const char* __lsan_default_suppressions() { return "leak:parse_coarse_quantizer"; }

namespace fovea::index {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// No function, file or line of C++.
MATCHER(NamesNoSources, "names no C++ function and no source file") {
  const std::string& text = arg;
  for (const char* part : {"Error in ", "faiss::", "std::", ".cpp", ".h:", "(int", "const "}) {
    if (text.find(part) == std::string::npos) continue;
    *result_listener << "it has \"" << part << "\"";
    return false;
  }
  return true;
}

TEST(FaissReasonTest, LeavesOutTheFunctionAndThePlace) {
  const faiss::FaissException thrown(
      "could not parse index string garbage",
      "std::unique_ptr<faiss::Index> faiss::{anonymous}::index_factory_sub(int, std::string)",
      "./faiss/index_factory.cpp", 879);
  ASSERT_THAT(thrown.what(), HasSubstr("index_factory.cpp:879"));  // this is what it is about
  EXPECT_EQ(FaissReason(thrown.what()), "could not parse index string garbage");
}

TEST(FaissReasonTest, WordsAreBetterThanTheCondition) {
  EXPECT_EQ(FaissReason("Error in void f() at /build/a b/PQ.cpp:59: Error: 'd % M == 0' failed: "
                        "The dimension should be a multiple: 3.\n"),
            "The dimension should be a multiple: 3");
  EXPECT_EQ(FaissReason("Error in void f() at PQ.cpp:59: Error: 'metric == METRIC_L2' failed"),
            "want metric == METRIC_L2");
}

TEST(FaissReasonTest, QuotedErrorsLoseTheirPlacesAsWell) {
  EXPECT_EQ(FaissReason("Exception thrown from index 1: Error in void g(T) [with T = int] at "
                        "b.cpp:7: one\nException thrown from index 2: Error in h at b.cpp:8: two"),
            "Exception thrown from index 1: one Exception thrown from index 2: two");
}

TEST(FaissReasonTest, OtherTextsStayWhole) {
  for (const std::string text :
       {"read error: 12 != 30", "Error in the third list", "ratio 1:2: too large", "no reason"}) {
    EXPECT_EQ(FaissReason(text), text);
  }
  EXPECT_EQ(FaissReason(""), "no reason");
}

TEST(CallFaissTest, ExceptionsBecomeWhatWasDoneWhatIsWrongAndWhatToDo) {
  const FaissAction action{"doing it", "do something else"};
  const absl::Status refused = CallFaiss(action, []() -> absl::Status {
    throw faiss::FaissException("not so", "void faiss::f()", "f.cpp", 1);
  });
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_EQ(refused.message(),
            "doing it: FAISS " + FaissVersion() + " says: not so: do something else");
  // What the standard library says is the name of a function.
  const absl::Status too_long = CallFaiss(
      action, []() -> absl::Status { throw std::length_error("vector::_M_default_append"); });
  EXPECT_TRUE(absl::IsInvalidArgument(too_long));
  EXPECT_THAT(
      std::string(too_long.message()),
      AllOf(HasSubstr("out of range"), HasSubstr("do something else"), Not(HasSubstr("vector"))));
  EXPECT_TRUE(absl::IsResourceExhausted(
      CallFaiss(action, []() -> absl::Status { throw std::bad_alloc(); })));
  const absl::Status gpu_is_full = CallFaiss(action, []() -> absl::Status {
    throw faiss::FaissException(
        "Error: 'err == cudaSuccess' failed: StandardGpuResources: alloc fail type IVFLists dev 0 "
        "space Device stream 0x5 size 9000 bytes (cudaMalloc error out of memory [2])\n",
        "virtual void* faiss::gpu::StandardGpuResourcesImpl::allocMemory()", "f.cpp", 1);
  });
  EXPECT_TRUE(absl::IsResourceExhausted(gpu_is_full));
  EXPECT_EQ(gpu_is_full.message(), "doing it: out of memory on the GPU");
  const absl::Status own = absl::NotFoundError("of its own");
  EXPECT_EQ(CallFaiss(action, [&] { return own; }), own);
}

TEST(FaissErrorTest, ASpecificationIsRefusedWithWhatIsWanted) {
  for (const char* spec :
       {"garbage", "Flat,", "IVF16(", "PQ300", "HNSW16,PQ300", "IDMap,Flat", "LSH", "NSG32"}) {
    const absl::Status status = ValidateSpec(spec, 64);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << spec << ": " << status;
    EXPECT_THAT(
        std::string(status.message()),
        AllOf(HasSubstr(std::string("index specification \"") + spec + "\": "),
              HasSubstr(FaissVersion()), HasSubstr(": want auto, exact, Scan2"), NamesNoSources()));
  }
}

TEST(FaissErrorTest, AnIndexThatCannotBeTrainedSaysWhatToDo) {
  auto device = *compute::Device::Create("cpu", 1);
  const SyntheticKeys keys(1, 3, 20, 1);  // fewer than the centroids
  const absl::Status status =
      LayerIndex::Build(*device, "IVF16,Flat", keys.All(), 20, Progress()).status();
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("index \"IVF16,Flat\" over 3 keys"),
                                                   HasSubstr("--index"), NamesNoSources()));
}

TEST(FaissErrorTest, AnIndexFileThatFaissCannotReadIsNamedWithWhatToDo) {
  auto device = *compute::Device::Create("cpu", 1);
  const SyntheticKeys keys(2, 100, 20, 1);
  const auto index = LayerIndex::Build(*device, "Flat", keys.All(), 20, Progress());
  ASSERT_TRUE(index.ok()) << index.status();
  std::string folder = (std::filesystem::temp_directory_path() / "faiss_error_XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::filesystem::path path = std::filesystem::path(folder) / "index";
  ASSERT_TRUE((*index)->Save(path).ok());
  std::string bytes = *ReadFile(path);
  // The name of the first head's structure, behind the magic, and a hash that fits.
  bytes.replace(8, 4, "What");
  bytes.resize(bytes.size() - 16);
  const Hash128 hash = FastHash128(bytes);
  bytes.append(reinterpret_cast<const char*>(&hash.low), 8);
  bytes.append(reinterpret_cast<const char*>(&hash.high), 8);
  std::ofstream(path, std::ios::binary) << bytes;
  const absl::Status status = LayerIndex::Load(path).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(path.string()), HasSubstr("head 0"),
                    HasSubstr("which FAISS " + FaissVersion() + " wrote"),
                    HasSubstr("FAISS " + FaissVersion() + " says: "),
                    HasSubstr("rebuild the index"), NamesNoSources()));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace fovea::index
