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
  for (int v = 0; v < V; ++v) sum[v] += share * widen(pack.at[v]);
}

// The values, or their gradients, of a token; `base` is that of token 0. One instruction multiplies, widens and adds.
template <typename T>
__device__ __forceinline__ T* row_of(T* base, int token, unsigned token_bytes) {
  using Bytes = std::conditional_t<std::is_const_v<T>, const char, char>;
  const uint64_t offset = static_cast<uint64_t>(static_cast<unsigned>(token)) * token_bytes;
  return reinterpret_cast<T*>(reinterpret_cast<Bytes*>(base) + offset);
}

// sum += factor * what the point reads, times its weight. Corners outside are not read: their shares are zero, and must
// not meet infinity.
template <int V, typename A, typename T>
__device__ __forceinline__ void add_corners(const Point<A>& in_tile, A factor, const T* base, unsigned token_bytes,
                                            A* sum) {
  const Point<A> point = in_tile;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (point.token[c] < 0) continue;
    add(load_pack<T, V>(row_of(base, point.token[c], token_bytes)), factor * point.share[c], sum);
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
  for (int v = 0; v < V; ++v) sum += x[v] * widen(pack.at[v]);
  return sum;
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

struct Launch {
  int lanes;
  int threads;
  unsigned blocks;
};

// Lanes enough for V channels each, a power of two and at most a warp; blocks as `Task` counts them.
inline Launch plan(const Sizes& sizes, int channels_at_once) {
  int lanes = 1;
  while (lanes < kWarp && lanes * channels_at_once < sizes.depth) lanes *= 2;
  const int groups = std::min(kMaxGroups, kThreads / lanes);
  const int64_t blocks = sizes.images * sizes.heads * ((sizes.queries + groups - 1) / groups);
  return {lanes, lanes * groups, static_cast<unsigned>(blocks)};
}

// Whether rows of T can be moved 16 bytes at a time.
template <typename T>
bool packs(const Sizes& sizes, std::initializer_list<const void*> arrays) {
  const auto aligned = [](const void* array) { return reinterpret_cast<uintptr_t>(array) % 16 == 0; };
  return sizes.depth % (16 / sizeof(T)) == 0 && std::all_of(arrays.begin(), arrays.end(), aligned);
}

}  // namespace detrbench
