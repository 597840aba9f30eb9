#include "msda_cuda.h"

#include "corners.cuh"

namespace detrbench {
namespace {

// A group sums one (image, query, head); each of its lanes V channels at a time.
template <typename T, typename C, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Sizes sizes, const DeviceLevels levels, const int lanes, const T* __restrict__ value,
                   const C* __restrict__ locations, const C* __restrict__ weights, T* __restrict__ output) {
  using A = Accumulate<T>;
  __shared__ Tile<A> tiles[kMaxGroups];
  check_levels(sizes, levels);
  const Group group(lanes);
  const bool active = group.index < sizes.images * sizes.queries * sizes.heads;
  Tile<A>& tile = tiles[group.in_block];
  const int64_t row = sizes.heads * sizes.depth;
  const int64_t image = group.index / (sizes.queries * sizes.heads), head = group.index % sizes.heads;
  const auto weight = [&](int64_t at) { return widen(weights[at]); };
  for (int64_t first_channel = 0; first_channel < sizes.depth; first_channel += lanes * V) {
    const int64_t channel = first_channel + group.lane * V;
    const bool working = active && channel < sizes.depth;
    const T* from = value + image * sizes.tokens * row + head * sizes.depth + channel;
    A sum[V] = {};
    for_each_point(sizes, levels, group, active, locations, weight, tile, [&](const Point<A>& point, int64_t, bool) {
      if (!working) return;
      Pack<T, V> corners[4];
      load_corners(point, from, row, corners);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (point.token[c] >= 0) add(corners[c], point.weight * bilinear(point, c), sum);
      }
    });
    if (working) store_pack<T, V>(output + group.index * sizes.depth + channel, sum);
  }
}

template <typename T, typename C, int V>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Sizes sizes, const DeviceLevels levels, const int lanes, const T* __restrict__ grad_output,
                    const T* __restrict__ value, const C* __restrict__ locations, const C* __restrict__ weights,
                    Accumulate<T>* __restrict__ grad_value, C* __restrict__ grad_locations,
                    C* __restrict__ grad_weights) {
  using A = Accumulate<T>;
  __shared__ Tile<A> tiles[kMaxGroups];
  check_levels(sizes, levels);
  const Group group(lanes);
  const bool active = group.index < sizes.images * sizes.queries * sizes.heads;
  Tile<A>& tile = tiles[group.in_block];
  const int64_t points = sizes.levels * sizes.points, row = sizes.heads * sizes.depth;
  const int64_t image = group.index / (sizes.queries * sizes.heads), head = group.index % sizes.heads;
  const auto weight = [&](int64_t at) { return widen(weights[at]); };
  for (int64_t first_channel = 0; first_channel < sizes.depth; first_channel += lanes * V) {
    const int64_t channel = first_channel + group.lane * V;
    const bool working = active && channel < sizes.depth;
    const bool more = first_channel > 0;  // a lane has written its points' sums over the channels so far
    const int64_t offset = image * sizes.tokens * row + head * sizes.depth + channel;
    A gradient[V] = {};
    if (working) add(load_pack<T, V>(grad_output + group.index * sizes.depth + channel), A(1), gradient);
    const auto visit = [&](const Point<A>& point, int64_t number, bool mine) {
      A dots[4] = {};
      if (working) {
        Pack<T, V> corners[4];
        load_corners(point, value + offset, row, corners);
        dot_corners(point, corners, gradient, dots);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (point.token[c] < 0) continue;
          add_atomically<V>(grad_value + offset + point.token[c] * row, point.weight * bilinear(point, c), gradient);
        }
      }
      A right, down;
      slopes(point, dots, right, down);
      const A interpolated = group.sum(interpolate(point, dots));
      right = group.sum(right), down = group.sum(down);
      if (!mine) return;
      const int64_t at = group.index * points + number;
      const Level level = level_at(levels, number / sizes.points);
      put(grad_weights + at, interpolated, more);
      put(grad_locations + 2 * at, right * point.weight * static_cast<A>(level.width), more);
      put(grad_locations + 2 * at + 1, down * point.weight * static_cast<A>(level.height), more);
    };
    for_each_point(sizes, levels, group, active, locations, weight, tile, visit);
  }
}

}  // namespace

template <typename T, typename C>
void msda_forward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* locations,
                       const C* weights, T* output, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(T);
  if (packs<T>(sizes, {value, output})) {
    const Launch launch = plan(sizes, V);
    forward_kernel<T, C, V>
        <<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch.lanes, value, locations, weights, output);
  } else {
    const Launch launch = plan(sizes, 1);
    forward_kernel<T, C, 1>
        <<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch.lanes, value, locations, weights, output);
  }
}

template <typename T, typename C, typename A>
void msda_backward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                        const C* locations, const C* weights, A* grad_value, C* grad_locations, C* grad_weights,
                        cudaStream_t stream) {
  constexpr int V = 16 / sizeof(T);
  if (packs<T>(sizes, {value, grad_output, grad_value})) {
    const Launch launch = plan(sizes, V);
    backward_kernel<T, C, V><<<launch.blocks, launch.threads, 0, stream>>>(
        sizes, levels, launch.lanes, grad_output, value, locations, weights, grad_value, grad_locations, grad_weights);
  } else {
    const Launch launch = plan(sizes, 1);
    backward_kernel<T, C, 1><<<launch.blocks, launch.threads, 0, stream>>>(
        sizes, levels, launch.lanes, grad_output, value, locations, weights, grad_value, grad_locations, grad_weights);
  }
}

#define DETRBENCH_INSTANTIATE(T, C)                                                                                  \
  template void msda_forward_cuda<T, C>(const Sizes&, const DeviceLevels&, const T*, const C*, const C*, T*,         \
                                        cudaStream_t);                                                               \
  template void msda_backward_cuda<T, C, Accumulate<T>>(const Sizes&, const DeviceLevels&, const T*, const T*,       \
                                                        const C*, const C*, Accumulate<T>*, C*, C*, cudaStream_t);
DETRBENCH_FOR_CUDA_TYPES(DETRBENCH_INSTANTIATE)

}  // namespace detrbench
