// LibTorch's API, with the names that both it and Abseil's logging could claim put right.
#pragma once

#include <torch/torch.h>  // IWYU pragma: export
