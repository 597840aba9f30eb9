#include "msda_cuda.h"

#include <algorithm>
#include <type_traits>

#include "sampling.cuh"

namespace detrbench {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxGroups = 32;  // groups of a block; bounds its shared memory

template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

// sum += share * pack
template <typename T, int V, typename A>
__device__ __forceinline__ void add(const Pack<T, V>& pack, A share, A* sum) {
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] += share * widen(pack.at[v]);
}

// Bilinear weight of corner c.
template <typename A>
__device__ __forceinline__ A bilinear(const Point<A>& point, int c) {
  return (c % 2 ? point.right : 1 - point.right) * (c / 2 ? point.down : 1 - point.down);
}

// The corners of a point, V channels each; zeros outside.
template <typename T, int V, typename A>
__device__ __forceinline__ void load_corners(const Point<A>& point, const T* value, int64_t row, Pack<T, V>* corners) {
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    corners[c] = point.token[c] >= 0 ? load_pack<T, V>(value + point.token[c] * row) : Pack<T, V>{};
  }
}

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
  const int64_t points = sizes.levels * sizes.points, row = sizes.heads * sizes.depth;
  const int64_t image = group.index / (sizes.queries * sizes.heads), head = group.index % sizes.heads;
  for (int64_t first_channel = 0; first_channel < sizes.depth; first_channel += lanes * V) {
    const int64_t channel = first_channel + group.lane * V;
    const bool working = active && channel < sizes.depth;
    const T* from = value + image * sizes.tokens * row + head * sizes.depth + channel;
    A sum[V] = {};
    for (int64_t first = 0; first < points; first += kTile) {
      const int count = static_cast<int>(points - first < kTile ? points - first : kTile);
      prepare_tile(sizes, levels, group, active, locations, weights, first, count, tile);
      for (int p = 0; working && p < count; ++p) {
        const Point<A> point = tile.points[p];
        Pack<T, V> corners[4];
        load_corners(point, from, row, corners);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (point.token[c] >= 0) add(corners[c], point.weight * bilinear(point, c), sum);
        }
      }
    }
    if (!working) continue;
    Pack<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.at[v] = narrow<T>(sum[v]);
    *reinterpret_cast<Pack<T, V>*>(output + group.index * sizes.depth + channel) = result;
  }
}

#if __CUDA_ARCH__ >= 900
constexpr bool kAddsFours = true;  // one instruction adds 16 bytes

__device__ __forceinline__ void add_four(float* to, float share, const float* gradient) {
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(share * gradient[0], share * gradient[1], share * gradient[2],
                                                       share * gradient[3]));
}
#else
constexpr bool kAddsFours = false;
[[maybe_unused]] __device__ void add_four(float* to, float share, const float* gradient);  // not called
#endif

// to[v] += share * gradient[v], from many threads at once.
template <int V, typename A>
__device__ __forceinline__ void add_atomically(A* to, A share, const A* gradient) {
  constexpr bool fours = kAddsFours && std::is_same_v<A, float> && V % 4 == 0;
#pragma unroll
  for (int v = 0; v < V; v += fours ? 4 : 1) {
    if constexpr (fours) {
      add_four(to + v, share, gradient + v);
    } else {
      atomicAdd(to + v, share * gradient[v]);
    }
  }
}

// Products of the output's gradient with the corners, summed over the channels of one lane.
template <typename T, int V, typename A>
__device__ __forceinline__ void dot_corners(const Point<A>& point, const T* value, int64_t row, const A* gradient,
                                            A* dots) {
  Pack<T, V> corners[4];
  load_corners(point, value, row, corners);
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    dots[c] = A(0);
    if (point.token[c] < 0) continue;  // infinity in the gradient must not meet the zeros outside
#pragma unroll
    for (int v = 0; v < V; ++v) dots[c] += gradient[v] * widen(corners[c].at[v]);
  }
}

template <typename C, typename A>
__device__ __forceinline__ void put(C* to, A x, bool add) {
  *to = narrow<C>(add ? x + widen(*to) : x);
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
  for (int64_t first_channel = 0; first_channel < sizes.depth; first_channel += lanes * V) {
    const int64_t channel = first_channel + group.lane * V;
    const bool working = active && channel < sizes.depth;
    const int64_t offset = image * sizes.tokens * row + head * sizes.depth + channel;
    A gradient[V] = {};
    if (working) add(load_pack<T, V>(grad_output + group.index * sizes.depth + channel), A(1), gradient);
    for (int64_t first = 0; first < points; first += kTile) {
      const int count = static_cast<int>(points - first < kTile ? points - first : kTile);
      prepare_tile(sizes, levels, group, active, locations, weights, first, count, tile);
      for (int p = 0; p < count; ++p) {
        const Point<A> point = active ? tile.points[p] : Point<A>{{-1, -1, -1, -1}, A(0), A(0), A(0)};
        A dots[4] = {};
        if (working) {
          dot_corners<T, V>(point, value + offset, row, gradient, dots);
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            if (point.token[c] < 0) continue;
            add_atomically<V>(grad_value + offset + point.token[c] * row, point.weight * bilinear(point, c), gradient);
          }
        }
        const A across_top = dots[1] - dots[0], across_bottom = dots[3] - dots[2];
        const A top = dots[0] + across_top * point.right, bottom = dots[2] + across_bottom * point.right;
        const A interpolated = group.sum(top + (bottom - top) * point.down);
        const A across = group.sum(across_top + (across_bottom - across_top) * point.down);
        const A down = group.sum(bottom - top);
        if (!active || group.lane != p % lanes) continue;
        const int64_t at = group.index * points + first + p;
        const Level level = level_at(levels, (first + p) / sizes.points);
        const bool more = first_channel > 0;  // the same lane has written the sum over the channels so far
        put(grad_weights + at, interpolated, more);
        put(grad_locations + 2 * at, across * point.weight * static_cast<A>(level.width), more);
        put(grad_locations + 2 * at + 1, down * point.weight * static_cast<A>(level.height), more);
      }
    }
  }
}

struct Launch {
  int lanes;
  int threads;
  unsigned blocks;
};

// Lanes enough for V channels each, a power of two and at most a warp.
Launch plan(const Sizes& sizes, int channels_at_once) {
  int lanes = 1;
  while (lanes < kWarp && lanes * channels_at_once < sizes.depth) lanes *= 2;
  const int groups = std::min(kMaxGroups, kThreads / lanes);
  const int64_t total = sizes.images * sizes.queries * sizes.heads;
  return {lanes, lanes * groups, static_cast<unsigned>((total + groups - 1) / groups)};
}

template <typename T>
bool packs(const Sizes& sizes, const void* a, const void* b, const void* c) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  return sizes.depth % (16 / sizeof(T)) == 0 && aligned(a) && aligned(b) && aligned(c);
}

}  // namespace

template <typename T, typename C>
void msda_forward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* locations,
                       const C* weights, T* output, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(T);
  if (packs<T>(sizes, value, output, nullptr)) {
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
  if (packs<T>(sizes, value, grad_output, grad_value)) {
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
DETRBENCH_INSTANTIATE(float, float)
DETRBENCH_INSTANTIATE(double, double)
DETRBENCH_INSTANTIATE(__half, __half)
DETRBENCH_INSTANTIATE(__half, float)
DETRBENCH_INSTANTIATE(__nv_bfloat16, __nv_bfloat16)
DETRBENCH_INSTANTIATE(__nv_bfloat16, float)

}  // namespace detrbench
