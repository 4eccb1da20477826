// Stands where NVIDIA's driver does (libcuda.so.1), for what a program says of a driver that cannot
// be used. The CUDA runtime asks it for each of its functions by name; the environment says what
// they answer: TEST_CUDA_VERSION (such as 12020), TEST_CUDA_INIT (an error code of the driver's).
#include <cstdlib>
#include <cstring>

namespace {

int FromEnvironment(const char* name, int otherwise) {
  const char* const value = std::getenv(name);
  return value != nullptr ? std::atoi(value) : otherwise;
}

constexpr int kDevicesUnavailable = 46;
int AnyOther() { return kDevicesUnavailable; }

}  // namespace

extern "C" {

int cuDriverGetVersion(int* version) {
  *version = FromEnvironment("TEST_CUDA_VERSION", 99000);
  return 0;
}
int cuInit(unsigned /*flags*/) { return FromEnvironment("TEST_CUDA_INIT", 0); }
int cuGetProcAddress_v2(const char* name, void** function, int /*version*/, unsigned long /*flags*/,
                        int* found) {
  if (found != nullptr) *found = 0;
  *function =
      std::strcmp(name, "cuDriverGetVersion") == 0 ? reinterpret_cast<void*>(&cuDriverGetVersion)
      : std::strcmp(name, "cuInit") == 0           ? reinterpret_cast<void*>(&cuInit)
      : std::strcmp(name, "cuGetProcAddress") == 0 ? reinterpret_cast<void*>(&cuGetProcAddress_v2)
                                                   : reinterpret_cast<void*>(&AnyOther);
  return 0;
}
int cuGetProcAddress(const char* name, void** function, int version, unsigned long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

}  // extern "C"
