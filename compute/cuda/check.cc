#include "compute/cuda/check.h"

#include <string>

namespace fovea::compute::cuda {
namespace {

std::string VersionText(int version) { return StrCat(version / 1000, ".", version % 1000 / 10); }

// " (CUDA_VISIBLE_DEVICES is "…")"; empty where it is not set.
std::string VisibleText(const GpuSurroundings& surroundings) {
  if (surroundings.visible_gpus == nullptr) return "";
  return StrCat(" (CUDA_VISIBLE_DEVICES is \"", surroundings.visible_gpus, "\")");
}

}  // namespace

absl::Status ToStatus(cudaError_t error, std::string_view what) {
  const std::string message =
      StrCat(what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  switch (error) {
    case cudaSuccess:
      return absl::OkStatus();
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(
          StrCat(message,
                 ": end other programs that use the GPU (`nvidia-smi` names them), take another "
                 "GPU (cuda:N), or use device 'cpu'"));
    case cudaErrorNoKernelImageForDevice:
      return absl::UnavailableError(
          StrCat(message,
                 ": this build holds no code for this GPU: build fovea with "
                 "-DCMAKE_CUDA_ARCHITECTURES=native, or use device 'cpu'"));
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorInvalidPtx:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorJitCompilationDisabled:
      return absl::UnavailableError(
          StrCat(message,
                 ": this build's code has to be translated for this GPU, which its driver cannot "
                 "do: update the driver, build fovea with -DCMAKE_CUDA_ARCHITECTURES=native, or "
                 "use device 'cpu'"));
    case cudaErrorDevicesUnavailable:
      return absl::UnavailableError(
          StrCat(message,
                 ": the GPU is given to another process alone, or to none (`nvidia-smi -q -d "
                 "COMPUTE` shows its compute mode): end that process, take another GPU (cuda:N), "
                 "or use device 'cpu'"));
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
      return absl::UnavailableError(
          StrCat(message, ": restart or update the driver, or use device 'cpu'"));
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorUnknown:
      return absl::InternalError(
          StrCat(message,
                 ": the GPU's work is lost, nothing that is stored: run the command again; if it "
                 "fails again, look for the GPU's errors in `dmesg` and `nvidia-smi -q`, or use "
                 "device 'cpu'"));
    default:
      return absl::InternalError(message);
  }
}

absl::Status ExplainNoGpu(cudaError_t error, const GpuSurroundings& surroundings) {
  if (error == cudaErrorInsufficientDriver && surroundings.driver_version > 0) {
    return absl::UnavailableError(
        StrCat("the NVIDIA driver supports CUDA ", VersionText(surroundings.driver_version),
               ", this build of fovea needs ", VersionText(CUDART_VERSION),
               ": update the driver, build fovea with an older CUDA (12.4 or later), or use device "
               "'cpu'"));
  }
  if (error == cudaErrorInsufficientDriver) {
    return absl::UnavailableError(
        "no NVIDIA driver was found (does `nvidia-smi` answer?): install it, in a container pass "
        "the GPU in (docker run --gpus all), or use device 'cpu'");
  }
  if (error == cudaErrorNoDevice && surroundings.visible_gpus != nullptr) {
    return absl::UnavailableError(
        StrCat("CUDA_VISIBLE_DEVICES is \"", surroundings.visible_gpus,
               "\", which leaves this process no GPU: `nvidia-smi -L` lists them; set it to "
               "numbers or UUIDs of the list, unset it, or use device 'cpu'"));
  }
  if (error == cudaErrorNoDevice) {
    return absl::UnavailableError(
        "the NVIDIA driver finds no GPU (does `nvidia-smi -L` list one?): in a container pass the "
        "GPU in (docker run --gpus all), or use device 'cpu'");
  }
  if (error == cudaErrorDevicesUnavailable || error == cudaErrorMemoryAllocation) {
    return ToStatus(error, "asking for the GPUs");
  }
  return absl::UnavailableError(
      StrCat("the NVIDIA driver does not answer: ", cudaGetErrorString(error), " (",
             cudaGetErrorName(error), ")", VisibleText(surroundings),
             error == cudaErrorSystemDriverMismatch
                 ? ": it was updated after the machine was started: restart the machine"
                 : ": restart the driver",
             ", or use device 'cpu'"));
}

absl::Status ExplainNoSuchGpu(int number, int n_gpus, const GpuSurroundings& surroundings) {
  return absl::NotFoundError(
      StrCat("there is no GPU ", number, ": this process sees ", n_gpus, VisibleText(surroundings),
             ", numbered from 0: use ",
             n_gpus == 1 ? std::string("'cuda:0'") : StrCat("'cuda:0' to 'cuda:", n_gpus - 1, "'"),
             ", or device 'cpu'"));
}

}  // namespace fovea::compute::cuda
