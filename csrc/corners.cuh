// What the CUDA kernels share: arithmetic on the corners of a point, and the size of a launch.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "sampling.cuh"

namespace detrbench {

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

// Products of a row with the corners, summed over the channels of one lane.
template <typename T, int V, typename A>
__device__ __forceinline__ void dot_corners(const Point<A>& point, const Pack<T, V>* corners, const A* x, A* dots) {
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    dots[c] = A(0);
    if (point.token[c] < 0) continue;  // infinity in x must not meet the zeros outside
#pragma unroll
    for (int v = 0; v < V; ++v) dots[c] += x[v] * widen(corners[c].at[v]);
  }
}

// What the point reads, given what its corners hold.
template <typename A>
__device__ __forceinline__ A interpolate(const Point<A>& point, const A* corners) {
  const A top = corners[0] + (corners[1] - corners[0]) * point.right;
  const A bottom = corners[2] + (corners[3] - corners[2]) * point.right;
  return top + (bottom - top) * point.down;
}

// How that changes by one pixel to the right, and by one down.
template <typename A>
__device__ __forceinline__ void slopes(const Point<A>& point, const A* corners, A& right, A& down) {
  const A across_top = corners[1] - corners[0], across_bottom = corners[3] - corners[2];
  right = across_top + (across_bottom - across_top) * point.down;
  down = corners[2] + across_bottom * point.right - (corners[0] + across_top * point.right);
}

// Writes x, or adds it to what the same lane has written before.
template <typename C, typename A>
__device__ __forceinline__ void put(C* to, A x, bool add) {
  *to = narrow<C>(add ? x + widen(*to) : x);
}

template <typename T, int V, typename A>
__device__ __forceinline__ void store_pack(T* to, const A* x) {
  Pack<T, V> pack;
#pragma unroll
  for (int v = 0; v < V; ++v) pack.at[v] = narrow<T>(x[v]);
  *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

struct Launch {
  int lanes;
  int threads;
  unsigned blocks;
};

// Lanes enough for V channels each, a power of two and at most a warp.
inline Launch plan(const Sizes& sizes, int channels_at_once) {
  int lanes = 1;
  while (lanes < kWarp && lanes * channels_at_once < sizes.depth) lanes *= 2;
  const int groups = std::min(kMaxGroups, kThreads / lanes);
  const int64_t total = sizes.images * sizes.queries * sizes.heads;
  return {lanes, lanes * groups, static_cast<unsigned>((total + groups - 1) / groups)};
}

// Whether rows of T can be moved 16 bytes at a time.
template <typename T>
bool packs(const Sizes& sizes, std::initializer_list<const void*> arrays) {
  const auto aligned = [](const void* array) { return reinterpret_cast<uintptr_t>(array) % 16 == 0; };
  return sizes.depth % (16 / sizeof(T)) == 0 && std::all_of(arrays.begin(), arrays.end(), aligned);
}

}  // namespace detrbench
