// Where a query samples, on the GPU: the lanes that share a head prepare its points together, in shared memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cassert>
#include <cstdint>
#include <type_traits>

#include "device_levels.h"

namespace detrbench {

// X(T, C) for each type of values and type of locations that the CUDA kernels are compiled for.
#define DETRBENCH_FOR_CUDA_TYPES(X)                                 \
  X(float, float) X(double, double) X(__half, __half) X(__half, float) \
  X(__nv_bfloat16, __nv_bfloat16) X(__nv_bfloat16, float)

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kMaxGroups = 32;  // groups of a block; bounds its shared memory

// The type that sums of T are kept in.
template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Points whose sums over lanes are taken together.
template <typename A>
constexpr int kBatch = 16 / sizeof(A);

// Points of kind P that are prepared at once, whole batches of them: as many as leave room for other blocks.
template <typename P, typename A>
constexpr int kTile = 512 / sizeof(P) / kBatch<A> * kBatch<A>;

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

// A point: its corners' tokens (top left, top right, bottom left, bottom right; -1 outside) and their shares, which are
// bilinear weight times attention weight (0 outside).
template <typename A>
struct alignas(16) Point {
  int32_t token[4];
  A share[4];
};

// A point whose location has a gradient: also its distance from the top left corner in pixels, and by how much what it
// reads changes with x and y where it changes by one from pixel to pixel.
template <typename A>
struct alignas(16) SlopedPoint : Point<A> {
  A right, down, along_x, along_y;
};

// The padding keeps the groups of a warp on different banks.
template <typename P, int kPoints>
struct alignas(16) Tile {
  P points[kPoints];
  int32_t padding[4];
};

// What a lane has of up to four sums.
template <typename A>
struct alignas(16) Partial {
  A at[4];
};

__device__ __forceinline__ Level level_at(const DeviceLevels& levels, int l) {
  if (levels.shapes == nullptr) return levels.given[l];
  return {levels.shapes[2 * l], levels.shapes[2 * l + 1], levels.starts[l]};
}

// The levels must fill the tokens one after the other. Levels that lie on the device are first seen here: one thread
// looks at them and stops the program, while `place` keeps every thread inside the values.
__device__ inline void check_levels(const Sizes& sizes, const DeviceLevels& levels) {
  if (levels.shapes == nullptr || blockIdx.x != 0 || threadIdx.x != 0) return;
  int64_t expected = 0;
  for (int l = 0; l < sizes.levels; ++l) {
    const Level level = level_at(levels, l);
    assert(level.height >= 0 && level.width >= 0 && "spatial_shapes hold a negative size");
    assert(level.start == expected && "level_start_index does not fit spatial_shapes");
    // Divided, since the product of two wrong numbers may not fit.
    assert((level.width == 0 || level.height <= (sizes.tokens - expected) / level.width) &&
           "spatial_shapes do not fit the tokens of value");
    expected += level.height * level.width;
  }
  assert(expected == sizes.tokens && "spatial_shapes do not fit the tokens of value");
}

// One point at (x, y), fractions of its level. 32 bits hold what is inside: there are fewer tokens than 2^31.
template <typename P, typename A>
__device__ __forceinline__ P place(const Level& level, int64_t tokens, A x, A y, A weight) {
  const int columns = static_cast<int>(level.width), rows = static_cast<int>(level.height);
  const A width = static_cast<A>(columns), height = static_cast<A>(rows);
  x = x * width - A(0.5);
  y = y * height - A(0.5);
  P point = {};
  // False for what is not a number, and where the level is empty.
  const bool reached = x > A(-1) && x < width && y > A(-1) && y < height && columns > 0 && rows > 0;
  const A left = reached ? floor(x) : A(0), top = reached ? floor(y) : A(0);
  const A right = x - left, down = y - top;
  const int column = static_cast<int>(left), row = static_cast<int>(top);
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const int at_column = column + c % 2, at_row = row + c / 2;
    // Without sign, so that sizes that do not fit wrap around.
    const unsigned token = static_cast<unsigned>(level.start) + static_cast<unsigned>(at_row) * columns + at_column;
    const bool inside = reached && at_column >= 0 && at_column < columns && at_row >= 0 && at_row < rows &&
                        token < static_cast<unsigned>(tokens);
    point.token[c] = inside ? static_cast<int>(token) : -1;
    point.share[c] = inside ? weight * (c % 2 ? right : 1 - right) * (c / 2 ? down : 1 - down) : A(0);
  }
  if constexpr (std::is_same_v<P, SlopedPoint<A>>) {
    if (reached) point.right = right, point.down = down, point.along_x = weight * width, point.along_y = weight * height;
  }
  return point;
}

// The work of a thread on one (image, query, head), which it shares with the lanes of its group: a power of two, so
// that a warp holds whole groups. A block has neighbouring queries of one head of one image: they read from the same
// pixels. P is the kind of points that it prepares.
template <typename T, typename C, typename P>
struct Task {
  using A = Accumulate<T>;
  using Tile = detrbench::Tile<P, kTile<P, A>>;

  const Sizes& sizes;
  const DeviceLevels& levels;
  const C* locations;
  Tile& tile;
  int lanes, lane;       // of the group; of this thread
  int points;            // of the query and head, over all levels
  bool active;           // the last groups of a head may have no query
  int64_t row;           // of the query and head, in arrays by (image, query, head)
  int64_t first_value;   // where the head's values begin
  unsigned token_bytes;  // from one of them to the next

  __device__ Task(const Sizes& sizes_, const DeviceLevels& levels_, int lanes_, const C* locations_, Tile* tiles)
      : sizes(sizes_),
        levels(levels_),
        locations(locations_),
        tile(tiles[threadIdx.x / lanes_]),
        lanes(lanes_),
        lane(threadIdx.x % lanes_),
        points(static_cast<int>(sizes.levels * sizes.points)),
        token_bytes(static_cast<unsigned>(sizes.heads * sizes.depth * sizeof(T))) {
    const unsigned groups = blockDim.x / lanes;
    const unsigned chunks = (static_cast<unsigned>(sizes.queries) + groups - 1) / groups;
    const unsigned query = blockIdx.x % chunks * groups + threadIdx.x / lanes;
    const unsigned in_images = blockIdx.x / chunks, heads = static_cast<unsigned>(sizes.heads);
    active = query < sizes.queries;
    row = (in_images / heads * sizes.queries + query) * heads + in_images % heads;
    first_value = (in_images / heads * sizes.tokens * sizes.heads + in_images % heads) * sizes.depth;
  }

  __device__ int64_t first_point() const { return row * points; }
  __device__ int64_t first_channel() const { return row * sizes.depth; }

  // Calls body(first of V channels, working, again) for the channels that this lane takes in turn, in step with its
  // warp; `working` if it has such channels, `again` if these are not its first.
  template <int V, typename Body>
  __device__ __forceinline__ void for_each_channel(const Body& body) const {
    const int depth = static_cast<int>(sizes.depth);
    for (int first = 0; first < depth; first += lanes * V) {
      const int channel = first + lane * V;
      body(channel, active && channel < depth, first > 0);
    }
  }

  // Calls body(first, count) for tiles of points [first, first + count), prepared; weight(at) gives a point its weight
  // by its place in the array of all points. A tile that holds all points is still there `again`. Every lane of the
  // warp must call it.
  template <typename Weight, typename Body>
  __device__ __forceinline__ void for_each_tile(const Weight& weight, bool again, const Body& body) const {
    constexpr int most = kTile<P, A>;
    for (int first = 0; first < points; first += most) {
      const int count = points - first < most ? points - first : most;
      if (!again || points > most) {
        __syncwarp();  // the tile before this one has been read
        for (int p = lane; active && p < count; p += lanes) tile.points[p] = prepared(first + p, weight);
        __syncwarp();
      }
      body(first, count);
    }
  }

  // Calls body(p) for the points, each on one lane of the group.
  template <typename Body>
  __device__ __forceinline__ void share_points(const Body& body) const {
    for (int64_t p = first_point() + lane; active && p < first_point() + points; p += lanes) body(p);
  }

  // The sum, or what else combine(a, b) makes, over the lanes of the group.
  template <typename Combine>
  __device__ __forceinline__ A across(A x, const Combine& combine) const {
    for (int step = lanes / 2; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
  }

 private:
  template <typename Weight>
  __device__ __forceinline__ P prepared(int number, const Weight& weight) const {
    const int64_t at = first_point() + number;
    const Pack<C, 2> location = load_pack<C, 2>(locations + 2 * at);
    const int level = static_cast<unsigned>(number) / static_cast<unsigned>(sizes.points);
    return place<P, A>(level_at(levels, level), sizes.tokens, widen(location.at[0]), widen(location.at[1]), weight(at));
  }
};

// For `count` points of the task's tile: calls body(number in the tile, point, terms), which sets N terms of this lane,
// and then on one lane finish(number, sums), with the sums of these over the lanes. Every lane of the warp must call it;
// the points of a group that is not active are anything.
template <int N, typename Task, typename A, typename Body, typename Finish>
__device__ __forceinline__ void sum_points(const Task& task, int count, Partial<A> (*room)[kThreads], const Body& body,
                                           const Finish& finish) {
  const int first_lane = threadIdx.x - task.lane;
  for (int first = 0; first < count; first += kBatch<A>) {
#pragma unroll
    for (int b = 0; b < kBatch<A>; ++b) {
      if (first + b >= count) break;
      const auto point = task.tile.points[first + b];
      A terms[N] = {};
      body(first + b, point, terms);
#pragma unroll
      for (int n = 0; n < N; ++n) room[b][threadIdx.x].at[n] = terms[n];
    }
    __syncwarp();
    for (int b = task.lane; b < kBatch<A> && first + b < count && task.active; b += task.lanes) {
      A sums[N] = {};
      for (int lane = first_lane; lane < first_lane + task.lanes; ++lane) {
#pragma unroll
        for (int n = 0; n < N; ++n) sums[n] += room[b][lane].at[n];
      }
      finish(first + b, sums);
    }
    __syncwarp();  // the room is free again, and all lanes may read what was written
  }
}

}  // namespace detrbench
