// The levels of a call as CUDA kernels take them.
#pragma once

#include <cuda_runtime_api.h>

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

// Writes `count` levels of the host to the device. They travel with launches: a copy would wait for the device, and a
// CUDA graph would refuse it.
void write_levels_cuda(const Level* levels, int64_t count, int64_t* shapes, int64_t* starts, cudaStream_t stream);

}  // namespace detrbench
