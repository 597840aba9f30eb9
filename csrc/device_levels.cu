#include "device_levels.h"

#include <algorithm>

namespace detrbench {
namespace {

constexpr int kThreads = 32;

template <int kMost>
struct Some {
  Level levels[kMost];
};

template <int kMost>
__global__ void write_kernel(const Some<kMost> some, const int count, int64_t* shapes, int64_t* starts) {
  const int l = static_cast<int>(threadIdx.x);
  if (l >= count) return;
  shapes[2 * l] = some.levels[l].height;
  shapes[2 * l + 1] = some.levels[l].width;
  starts[l] = some.levels[l].start;
}

}  // namespace

void write_levels_cuda(const Level* levels, int64_t count, int64_t* shapes, int64_t* starts, cudaStream_t stream) {
  static_assert(kGivenLevels <= kThreads);
  for (int64_t first = 0; first < count; first += kGivenLevels) {
    const int number = static_cast<int>(std::min<int64_t>(kGivenLevels, count - first));
    Some<kGivenLevels> some = {};
    std::copy_n(levels + first, number, some.levels);
    write_kernel<kGivenLevels><<<1, kThreads, 0, stream>>>(some, number, shapes + 2 * first, starts + first);
  }
}

}  // namespace detrbench
