#include <cuda_runtime.h>

#include <string>

#include "compute/cuda/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::compute::cuda {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST(CudaErrorsTest, SayWhatHappenedWhereAndWhatToDo) {
  EXPECT_TRUE(ToStatus(cudaSuccess, "an op").ok());
  struct Case {
    cudaError_t error;
    absl::StatusCode code;
    const char* advice;
  };
  for (const Case& of :
       {Case{cudaErrorMemoryAllocation, absl::StatusCode::kResourceExhausted, "nvidia-smi"},
        {cudaErrorNoKernelImageForDevice, absl::StatusCode::kUnavailable,
         "CMAKE_CUDA_ARCHITECTURES=native"},
        {cudaErrorUnsupportedPtxVersion, absl::StatusCode::kUnavailable, "update the driver"},
        {cudaErrorDevicesUnavailable, absl::StatusCode::kUnavailable, "end that process"},
        {cudaErrorSystemDriverMismatch, absl::StatusCode::kUnavailable, "update the driver"},
        {cudaErrorECCUncorrectable, absl::StatusCode::kInternal, "run the command again"},
        {cudaErrorIllegalAddress, absl::StatusCode::kInternal, "dmesg"},
        {cudaErrorLaunchFailure, absl::StatusCode::kInternal, "nothing that is stored"}}) {
    const absl::Status status = ToStatus(of.error, "scoring keys");
    EXPECT_EQ(status.code(), of.code) << status;
    EXPECT_THAT(Text(status), AllOf(HasSubstr("scoring keys: "), HasSubstr(of.advice),
                                    HasSubstr(cudaGetErrorName(of.error)), HasSubstr("'cpu'")));
  }
}

TEST(CudaErrorsTest, NoGpuIsExplainedByWhatIsThere) {
  const auto none = [](cudaError_t error, const GpuSurroundings& surroundings) {
    const absl::Status status = ExplainNoGpu(error, surroundings);
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(Text(status), HasSubstr("'cpu'"));
    return Text(status);
  };
  EXPECT_THAT(none(cudaErrorInsufficientDriver, {}), HasSubstr("no NVIDIA driver was found"));
  EXPECT_THAT(none(cudaErrorInsufficientDriver, {.driver_version = 12020}),
              AllOf(HasSubstr("supports CUDA 12.2"), HasSubstr("update the driver")));
  EXPECT_THAT(none(cudaErrorNoDevice, {.driver_version = 99000}), HasSubstr("finds no GPU"));
  EXPECT_THAT(none(cudaErrorNoDevice, {.driver_version = 99000, .visible_gpus = "3"}),
              HasSubstr("CUDA_VISIBLE_DEVICES is \"3\""));
  EXPECT_THAT(none(cudaErrorUnknown, {.driver_version = 99000, .visible_gpus = "0"}),
              AllOf(HasSubstr("cudaErrorUnknown"), HasSubstr("CUDA_VISIBLE_DEVICES is \"0\"")));
  EXPECT_THAT(none(cudaErrorSystemDriverMismatch, {.driver_version = 99000}),
              HasSubstr("restart the machine"));
}

TEST(CudaErrorsTest, AGpuThatIsNotThereIsToldFromThoseThatAre) {
  const absl::Status one = ExplainNoSuchGpu(7, 1, {.visible_gpus = "2"});
  EXPECT_TRUE(absl::IsNotFound(one)) << one;
  EXPECT_THAT(Text(one), AllOf(HasSubstr("no GPU 7"), HasSubstr("sees 1"), HasSubstr("'cuda:0'"),
                               HasSubstr("CUDA_VISIBLE_DEVICES is \"2\"")));
  EXPECT_THAT(Text(ExplainNoSuchGpu(8, 8, {})), HasSubstr("'cuda:0' to 'cuda:7'"));
}

}  // namespace
}  // namespace fovea::compute::cuda
