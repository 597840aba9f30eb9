// The levels of a call as CUDA kernels take them.
#pragma once

#include <cstdint>

#include "sizes.h"

namespace detrbench {

constexpr int kGivenLevels = 16;

// Read on the device from `shapes` (L, 2) and `starts` (L,), or, where `shapes` is null, given.
struct DeviceLevels {
  const int64_t* shapes;
  const int64_t* starts;
  Level given[kGivenLevels];
};

}  // namespace detrbench
