// Where a query samples, on the GPU: the lanes that share a head prepare its points together, in shared memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cassert>
#include <cstdint>

#include "device_levels.h"

namespace detrbench {

// X(T, C) for each type of values and type of locations that the CUDA kernels are compiled for.
#define DETRBENCH_FOR_CUDA_TYPES(X)                                 \
  X(float, float) X(double, double) X(__half, __half) X(__half, float) \
  X(__nv_bfloat16, __nv_bfloat16) X(__nv_bfloat16, float)

constexpr int kWarp = 32;
constexpr int kTile = 16;  // points prepared at once

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T narrow(float x) {
  return static_cast<T>(x);
}
template <>
__device__ __forceinline__ __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <typename T>
__device__ __forceinline__ T narrow(double x) {
  return static_cast<T>(x);
}

// V neighbouring channels, moved by one instruction.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];
};

template <typename T, int V>
__device__ __forceinline__ Pack<T, V> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}

// The lanes that work on one (image, query, head); a power of two, so that a warp holds whole groups.
struct Group {
  int lanes;      // in the group
  int lane;       // of this thread
  int in_block;   // which group of the block
  int64_t index;  // (image * Q + query) * M + head

  __device__ explicit Group(int lanes_)
      : lanes(lanes_),
        lane(threadIdx.x % lanes_),
        in_block(threadIdx.x / lanes_),
        index(static_cast<int64_t>(blockIdx.x) * (blockDim.x / lanes_) + in_block) {}

  template <typename A>
  __device__ __forceinline__ A sum(A x) const {
    for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
  }

  template <typename A>
  __device__ __forceinline__ A largest(A x) const {
    for (int step = lanes / 2; step > 0; step /= 2) {
      const A other = __shfl_xor_sync(0xffffffffu, x, step);
      x = other > x ? other : x;
    }
    return x;
  }
};

// A point: its corners' tokens (top left, top right, bottom left, bottom right; -1 outside), its distance from the
// top left corner in pixels, its attention weight (0 where it reaches nothing).
template <typename A>
struct alignas(16) Point {
  int32_t token[4];
  A right, down, weight;
};

// The padding keeps the groups of a warp on different banks.
template <typename A>
struct alignas(16) Tile {
  Point<A> points[kTile];
  int32_t padding[4];
};

__device__ __forceinline__ Level level_at(const DeviceLevels& levels, int64_t l) {
  if (levels.shapes == nullptr) return levels.given[l];
  return {levels.shapes[2 * l], levels.shapes[2 * l + 1], levels.starts[l]};
}

// The levels must fill the tokens one after the other. Levels that lie on the device are first seen here: one thread
// looks at them and stops the program, while `prepare` keeps every thread inside the values.
__device__ inline void check_levels(const Sizes& sizes, const DeviceLevels& levels) {
  if (levels.shapes == nullptr || blockIdx.x != 0 || threadIdx.x != 0) return;
  int64_t expected = 0;
  for (int64_t l = 0; l < sizes.levels; ++l) {
    const Level level = level_at(levels, l);
    assert(level.height >= 0 && level.width >= 0 && "spatial_shapes hold a negative size");
    assert(level.start == expected && "level_start_index does not fit spatial_shapes");
    expected += level.height * level.width;
  }
  assert(expected == sizes.tokens && "spatial_shapes do not fit the tokens of value");
}

// One point at (x, y), fractions of its level.
template <typename A>
__device__ __forceinline__ Point<A> prepare(const Level& level, int64_t tokens, A x, A y, A weight) {
  const A width = static_cast<A>(level.width), height = static_cast<A>(level.height);
  x = x * width - A(0.5);
  y = y * height - A(0.5);
  Point<A> point = {{-1, -1, -1, -1}, A(0), A(0), A(0)};
  // False for what is not a number.
  const bool reached = x > A(-1) && x < width && y > A(-1) && y < height && level.width > 0 && level.height > 0;
  if (!reached) return point;
  const A left = floor(x), top = floor(y);
  const int64_t column = static_cast<int64_t>(left), row = static_cast<int64_t>(top);
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const int64_t at_column = column + c % 2, at_row = row + c / 2;
    const int64_t token = level.start + at_row * level.width + at_column;
    const bool inside = at_column >= 0 && at_column < level.width && at_row >= 0 && at_row < level.height;
    if (inside && token >= 0 && token < tokens) point.token[c] = static_cast<int32_t>(token);
  }
  point.right = x - left;
  point.down = y - top;
  point.weight = weight;
  return point;
}

// Points [first, first + count) of a group's query and head; weight(at) gives a point its weight by its place in the
// array of all points. Every lane of the warp must call it.
template <typename C, typename A, typename Weight>
__device__ __forceinline__ void prepare_tile(const Sizes& sizes, const DeviceLevels& levels, const Group& group,
                                             bool active, const C* locations, const Weight& weight, int64_t first,
                                             int count, Tile<A>& tile) {
  __syncwarp();  // the tile before this one has been read
  for (int p = group.lane; active && p < count; p += group.lanes) {
    const int64_t at = group.index * sizes.levels * sizes.points + first + p;
    const Pack<C, 2> location = load_pack<C, 2>(locations + 2 * at);
    tile.points[p] = prepare<A>(level_at(levels, (first + p) / sizes.points), sizes.tokens, widen(location.at[0]),
                                widen(location.at[1]), weight(at));
  }
  __syncwarp();
}

// Calls body(point, number, mine) for each point of a group's query and head, one lane of the group being told that the
// point is its to write. Every lane of the warp must call it; the points of a group that is not active reach nothing.
template <typename C, typename A, typename Weight, typename Body>
__device__ __forceinline__ void for_each_point(const Sizes& sizes, const DeviceLevels& levels, const Group& group,
                                               bool active, const C* locations, const Weight& weight, Tile<A>& tile,
                                               const Body& body) {
  const int64_t points = sizes.levels * sizes.points;
  for (int64_t first = 0; first < points; first += kTile) {
    const int count = static_cast<int>(points - first < kTile ? points - first : kTile);
    prepare_tile(sizes, levels, group, active, locations, weight, first, count, tile);
    for (int p = 0; p < count; ++p) {
      const Point<A> point = active ? tile.points[p] : Point<A>{{-1, -1, -1, -1}, A(0), A(0), A(0)};
      body(point, first + p, active && group.lane == p % group.lanes);
    }
  }
}

}  // namespace detrbench
