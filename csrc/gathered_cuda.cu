#include "gathered_cuda.h"

#include "sampling.cuh"

namespace detrbench {
namespace {

template <typename C, typename A>
__global__ void __launch_bounds__(kThreads)
    list_kernel(const Sizes sizes, const DeviceLevels levels, const C* __restrict__ locations,
                const C* __restrict__ weights, int64_t* __restrict__ tokens, A* __restrict__ shares) {
  check_levels(sizes, levels);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, samples = sizes.levels * sizes.points;
  if (at >= sizes.images * sizes.queries * sizes.heads * samples) return;
  const int64_t row = at / samples;
  const int64_t image = row / (sizes.queries * sizes.heads), head = row % sizes.heads;
  const Level level = level_at(levels, static_cast<int>(at % samples / sizes.points));
  const Point<A> point = place<Point<A>, A>(
      level, sizes.tokens, 1,
      {to_pixels<A>(widen(locations[2 * at]), level.width),
       to_pixels<A>(widen(locations[2 * at + 1]), level.height), weights == nullptr ? A(1) : widen(weights[at])});
  for (int c = 0; c < 4; ++c) {
    const int64_t none = sizes.images * sizes.heads * sizes.tokens;
    tokens[4 * at + c] = point.corner[c] < 0 ? none : (image * sizes.heads + head) * sizes.tokens + point.corner[c];
    shares[4 * at + c] = point.share[c];
  }
}

template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const Sizes sizes, const int64_t* __restrict__ bounds, const int64_t* __restrict__ order,
                  const A* __restrict__ shares, const T* __restrict__ grad_output, const KeyTerms<T, A> keys,
                  T* __restrict__ grad_value) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t token = at / sizes.depth, channel = at % sizes.depth;
  if (token >= sizes.images * sizes.heads * sizes.tokens) return;
  const int64_t samples = sizes.levels * sizes.points;
  A sum = 0;
  for (int64_t i = bounds[token]; i < bounds[token + 1]; ++i) {
    const int64_t point = order[i] / 4, from = point / samples * sizes.depth + channel;
    A gradient = widen(grad_output[from]);
    if (keys.query != nullptr) {
      gradient = keys.weights[point] * gradient + keys.grad_logits[point] * widen(keys.query[from]);
    }
    sum += shares[order[i]] * gradient;
  }
  const int64_t image = token / (sizes.heads * sizes.tokens), head = token / sizes.tokens % sizes.heads;
  const int64_t row = (image * sizes.tokens + token % sizes.tokens) * sizes.heads + head;
  grad_value[row * sizes.depth + channel] = narrow<T>(sum);
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

}  // namespace

template <typename C, typename A>
void list_corners_cuda(const Sizes& sizes, const DeviceLevels& levels, const C* locations, const C* weights,
                       int64_t* tokens, A* shares, cudaStream_t stream) {
  const int64_t points = sizes.images * sizes.queries * sizes.heads * sizes.samples();
  if (points == 0) return;
  list_kernel<C, A>
      <<<blocks_for(points), kThreads, 0, stream>>>(sizes, levels, locations, weights, tokens, shares);
}

template <typename T, typename A>
void gather_gradients_cuda(const Sizes& sizes, const int64_t* bounds, const int64_t* order, const A* shares,
                           const T* grad_output, const KeyTerms<T, A>& keys, T* grad_value, cudaStream_t stream) {
  const int64_t elements = sizes.images * sizes.heads * sizes.tokens * sizes.depth;
  if (elements == 0) return;
  gather_kernel<T, A>
      <<<blocks_for(elements), kThreads, 0, stream>>>(sizes, bounds, order, shares, grad_output, keys, grad_value);
}

#define DETRBENCH_INSTANTIATE_LIST(C, A)                                                                     \
  template void list_corners_cuda<C, A>(const Sizes&, const DeviceLevels&, const C*, const C*, int64_t*, A*, \
                                        cudaStream_t);
DETRBENCH_INSTANTIATE_LIST(float, float)
DETRBENCH_INSTANTIATE_LIST(double, double)
DETRBENCH_INSTANTIATE_LIST(__half, float)
DETRBENCH_INSTANTIATE_LIST(__nv_bfloat16, float)

#define DETRBENCH_INSTANTIATE_GATHER(T)                                                                            \
  template void gather_gradients_cuda<T, Accumulate<T>>(const Sizes&, const int64_t*, const int64_t*,              \
                                                        const Accumulate<T>*, const T*,                            \
                                                        const KeyTerms<T, Accumulate<T>>&, T*, cudaStream_t);
DETRBENCH_INSTANTIATE_GATHER(float)
DETRBENCH_INSTANTIATE_GATHER(double)
DETRBENCH_INSTANTIATE_GATHER(__half)
DETRBENCH_INSTANTIATE_GATHER(__nv_bfloat16)

}  // namespace detrbench
