// What the CUDA kernels share: arithmetic on the corners of a point, and the size of a launch.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "sampling.cuh"

namespace detrbench {

// sum += share * pack
template <typename T, int V, typename A>
__device__ __forceinline__ void add(const Pack<T, V>& pack, A share, A* sum) {
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] += share * pack[v];
}

// Calls body(c, pack) with V channels of the value at each corner c of the point that lies inside, all read before the
// first call. Corners outside are not read: their shares are zero, and must not meet infinity.
template <int V, typename P, typename T, typename Body>
__device__ __forceinline__ void for_each_corner(const P& point, const T* base, const Body& body) {
  Pack<T, V> corners[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (point.corner[c] >= 0) corners[c] = load_corner<V>(base, point.corner[c]);
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (point.corner[c] >= 0) body(c, corners[c]);
  }
}

// sum += factor * what the point reads, times its weight.
template <int V, typename A, typename T>
__device__ __forceinline__ void add_corners(const Point<A>& in_tile, A factor, const T* base, A* sum) {
  const Point<A> point = in_tile;
  for_each_corner<V>(point, base, [&](int c, const Pack<T, V>& corner) { add(corner, factor * point.share[c], sum); });
}

#if __CUDA_ARCH__ >= 900
constexpr bool kAddsFours = true;  // one instruction adds 16 bytes

__device__ __forceinline__ void add_four(float* to, const float* x) {
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(x[0], x[1], x[2], x[3]));
}
#else
constexpr bool kAddsFours = false;
[[maybe_unused]] __device__ void add_four(float* to, const float* x);  // not called
#endif

// to[v] += x[v], from many threads at once.
template <int V, typename A>
__device__ __forceinline__ void add_atomically(A* to, const A* x) {
  constexpr bool fours = kAddsFours && std::is_same_v<A, float> && V % 4 == 0;
#pragma unroll
  for (int v = 0; v < V; v += fours ? 4 : 1) {
    if constexpr (fours) {
      add_four(to + v, x + v);
    } else {
      atomicAdd(to + v, x[v]);
    }
  }
}

// The V channels of x that a lane works on, zeros if none.
template <int V, typename T, typename A>
__device__ __forceinline__ void load_row(const T* x, bool working, A* to) {
#pragma unroll
  for (int v = 0; v < V; ++v) to[v] = A(0);
  if (working) add(load_pack<T, V>(x), A(1), to);
}

// The product of a row with a pack.
template <typename T, int V, typename A>
__device__ __forceinline__ A dot(const Pack<T, V>& pack, const A* x) {
  A sum = 0;
#pragma unroll
  for (int v = 0; v < V; ++v) sum += x[v] * pack[v];
  return sum;
}

// to[c] = the product of a row with the value at corner c, for corners inside: infinity in the row must not meet the
// zeros outside.
template <int V, typename P, typename T, typename A>
__device__ __forceinline__ void dot_corners(const P& point, const T* base, const A* row, A* to) {
  for_each_corner<V>(point, base, [&](int c, const Pack<T, V>& corner) { to[c] = dot(corner, row); });
}

// What the point reads, given what its corners hold; how that changes by one pixel to the right, and by one down.
template <typename A>
__device__ __forceinline__ void interpolate(const SlopedPoint<A>& point, const A* corners, A* to) {
  const A across_top = corners[1] - corners[0], across_bottom = corners[3] - corners[2];
  const A top = corners[0] + across_top * point.right, bottom = corners[2] + across_bottom * point.right;
  to[0] = top + (bottom - top) * point.down;
  to[1] = across_top + (across_bottom - across_top) * point.down;
  to[2] = bottom - top;
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

// Lanes enough for V channels each, a power of two and at most a warp; blocks as `Task` counts them.
inline Launch plan(const Sizes& sizes, int channels_at_once) {
  int lanes = 1;
  while (lanes < kWarp && lanes * channels_at_once < sizes.depth) lanes *= 2;
  const int groups = std::min(kMaxGroups, kThreads / lanes);
  const int64_t chunks = (sizes.queries + groups - 1) / groups, blocks = sizes.images * sizes.heads * chunks;
  return {lanes,          lanes * groups,       static_cast<unsigned>(blocks),
          Divisor(chunks), Divisor(sizes.heads), Divisor(std::max<int64_t>(sizes.points, 1))};
}

// Whether rows can be moved V channels at a time.
template <int V>
bool packs(const Sizes& sizes, std::initializer_list<const void*> arrays) {
  const auto aligned = [](const void* array) { return reinterpret_cast<uintptr_t>(array) % 16 == 0; };
  return sizes.depth % V == 0 && std::all_of(arrays.begin(), arrays.end(), aligned);
}

}  // namespace detrbench
