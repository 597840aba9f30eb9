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

constexpr int kBatch = 4;        // points whose sums over lanes are taken together
constexpr unsigned kBand = 4;    // rows of a level that the queries of a block come from

// Points of kind P that are prepared at once, whole batches of them: as many as leave room for other blocks.
template <typename P>
constexpr int kTile = 512 / sizeof(P) / kBatch * kBatch;

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

  __device__ __forceinline__ Accumulate<T> operator[](int v) const {
    if constexpr (std::is_same_v<T, __nv_bfloat16> && V % 2 == 0) {  // of a word: one instruction where nvcc makes two
      const unsigned word = reinterpret_cast<const unsigned*>(at)[v / 2];
      return __uint_as_float(v % 2 ? word & 0xffff0000u : word << 16);
    } else {
      return widen(at[v]);
    }
  }
};

template <typename T, int V>
__device__ __forceinline__ Pack<T, V> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}

// V channels of the value that begins `corner` numbers behind `base`. Left to itself nvcc works the address out anew for
// each corner, from the start of the array, in five instructions; this is two.
template <int V, typename T>
__device__ __forceinline__ Pack<T, V> load_corner(const T* base, int32_t corner) {
#ifdef __CUDACC__
  using Word = std::conditional_t<sizeof(T) * V == 16, uint4,
                                  std::conditional_t<sizeof(T) * V == 8, uint2,
                                                     std::conditional_t<sizeof(T) * V == 4, unsigned, unsigned short>>>;
  static_assert(sizeof(Word) == sizeof(Pack<T, V>));
  const Word* at;
  asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(at) : "r"(corner), "n"(sizeof(T)), "l"(base));
  const Word word = __ldg(at);
  return *reinterpret_cast<const Pack<T, V>*>(&word);
#else
  return load_pack<T, V>(base + corner);
#endif
}

// A point: where its corners' values begin behind those of token 0 (top left, top right, bottom left, bottom right; -1
// outside), counted in numbers; and the corners' shares: bilinear weight times attention weight (0 outside).
template <typename A>
struct alignas(16) Point {
  int32_t corner[4];
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

// Divides by what the host knows, without dividing: exact for what is below 2^31 (Granlund and Montgomery, 1994).
struct Divisor {
  unsigned by, factor, shift;

  explicit Divisor(int64_t by_) : by(static_cast<unsigned>(by_)), shift(0) {
    while ((uint64_t{1} << shift) < by) ++shift;
    factor = static_cast<unsigned>((((uint64_t{1} << shift) - by) << 32) / by + 1);
  }

  __device__ unsigned operator()(unsigned x) const { return (__umulhi(x, factor) + x) >> shift; }
};

struct Launch {
  int lanes;
  int threads;
  unsigned blocks;
  Divisor chunks;  // of the queries of a head, one to a block
  Divisor heads;
  Divisor points;  // of a level
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

// Where a point samples, in pixels behind the centre of the first, and its weight.
template <typename A>
struct Sample {
  A x, y, weight;
};

// In pixels from a fraction of the side.
template <typename A>
__device__ __forceinline__ A to_pixels(A fraction, int64_t side) {
  return fraction * static_cast<A>(static_cast<int>(side)) - A(0.5);
}

// The point of a sample of a level; `stride` numbers lie from one token to the next. 32 bits hold what is inside: a head's
// values of an image are fewer than 2^31.
template <typename P, typename A>
__device__ __forceinline__ P place(const Level& level, int64_t tokens, unsigned stride, const Sample<A>& sample) {
  const int columns = static_cast<int>(level.width), rows = static_cast<int>(level.height);
  const A width = static_cast<A>(columns), height = static_cast<A>(rows);
  const A x = sample.x, y = sample.y, weight = sample.weight;
  P point = {};
  const bool reached = x > A(-1) && x < width && y > A(-1) && y < height;  // false for what is not a number
  const A left = reached ? floor(x) : A(-2), top = reached ? floor(y) : A(-2);
  const A right = x - left, down = y - top;
  const int column = static_cast<int>(left), row = static_cast<int>(top);
  // Without sign, so that sizes that do not fit wrap around.
  const unsigned first = static_cast<unsigned>(level.start) + static_cast<unsigned>(row) * columns + column;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const int at_column = column + c % 2, at_row = row + c / 2;
    const unsigned token = first + (c / 2 ? columns : 0) + c % 2;
    const bool inside = at_column >= 0 && at_column < columns && at_row >= 0 && at_row < rows &&
                        token < static_cast<unsigned>(tokens);
    point.corner[c] = inside ? static_cast<int>(token * stride) : -1;
    point.share[c] = inside ? (weight * (c / 2 ? down : 1 - down)) * (c % 2 ? right : 1 - right) : A(0);
  }
  if constexpr (std::is_same_v<P, SlopedPoint<A>>) {
    if (reached) point.right = right, point.down = down, point.along_x = weight * width, point.along_y = weight * height;
  }
  return point;
}

// The query that stands at a place in the order in which blocks take them. Where there are as many queries as tokens,
// each is about a token: then neighbours in both directions stand together, `kBand` rows of a level column by column, so
// that a block reads fewer pixels.
__device__ inline unsigned query_at(unsigned place, const Sizes& sizes, const DeviceLevels& levels) {
  if (sizes.queries != sizes.tokens || place >= sizes.queries) return place;
  for (int l = 0; l < sizes.levels; ++l) {
    const Level level = level_at(levels, l);
    const unsigned width = static_cast<unsigned>(level.width), height = static_cast<unsigned>(level.height);
    const unsigned within = place - static_cast<unsigned>(level.start);
    if (within >= width * height) continue;
    const unsigned band = within / (kBand * width), in_band = within - band * kBand * width;
    const unsigned rows = height - band * kBand < kBand ? height - band * kBand : kBand;
    const unsigned query = place - in_band + in_band % rows * width + in_band / rows;
    return query < sizes.queries ? query : place;
  }
  return place;
}

// The work of a thread on one (image, query, head), which it shares with the lanes of its group: a power of two, so
// that a warp holds whole groups. A block has neighbouring queries of one head of one image: they read from the same
// pixels. P is the kind of points that it prepares.
template <typename T, typename P>
struct Task {
  using A = Accumulate<T>;
  static constexpr int kPoints = kTile<P>;
  using Tile = detrbench::Tile<P, kPoints>;

  const Sizes& sizes;
  const DeviceLevels& levels;
  const Launch& launch;
  Tile& tile;
  int lanes, lane, group;  // lanes of the group; this thread's among them; the group's number in the block
  int points;              // of the query and head, over all levels
  bool active;             // the last groups of a head may have no query
  int64_t row;             // of the query and head, in arrays by (image, query, head)
  int64_t first_value;     // where the head's values begin
  unsigned stride;         // numbers from one of them to the next

  // `queries` is shared memory for the queries of the block's groups. All threads of the block must come here.
  __device__ Task(const Sizes& sizes_, const DeviceLevels& levels_, const Launch& launch_, Tile* tiles,
                  unsigned* queries)
      : sizes(sizes_),
        levels(levels_),
        launch(launch_),
        tile(tiles[threadIdx.x / launch_.lanes]),
        lanes(launch_.lanes),
        lane(threadIdx.x % launch_.lanes),
        group(threadIdx.x / launch_.lanes),
        points(static_cast<int>(sizes.levels * sizes.points)),
        stride(static_cast<unsigned>(sizes.heads * sizes.depth)) {
    const unsigned in_images = launch.chunks(blockIdx.x), chunk = blockIdx.x - in_images * launch.chunks.by;
    const unsigned image = launch.heads(in_images), head = in_images - image * launch.heads.by;
    if (threadIdx.x < groups()) queries[threadIdx.x] = query_at(chunk * groups() + threadIdx.x, sizes, levels);
    __syncthreads();
    const unsigned query = queries[group];
    active = query < sizes.queries;
    row = (image * sizes.queries + query) * sizes.heads + head;
    first_value = (image * sizes.tokens * sizes.heads + head) * sizes.depth;
  }

  __device__ unsigned groups() const { return blockDim.x / lanes; }
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

  // Calls body(first, count) for tiles of points [first, first + count), prepared; samples(task, number, level, its
  // number) says where a point samples. A tile that holds all points is still there `again`. Every lane of the warp must
  // call it.
  template <typename Samples, typename Body>
  __device__ __forceinline__ void for_each_tile(const Samples& samples, bool again, const Body& body) const {
    for (int first = 0; first < points; first += kPoints) {
      const int count = points - first < kPoints ? points - first : kPoints;
      if (!again || points > kPoints) {
        __syncwarp();  // the tile before this one has been read
#pragma unroll 1
        for (int p = lane; active && p < count; p += lanes) {
          const int l = launch.points(first + p);
          const Level level = level_at(levels, l);
          tile.points[p] = place<P, A>(level, sizes.tokens, stride, samples(*this, first + p, level, l));
        }
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
};

// Samples at locations (N, Q, M, L, P, 2) that are given, fractions of the level. Without weights (N, Q, M, L, P) each
// weighs one.
template <typename A, typename C>
struct Given {
  const C* __restrict__ locations;
  const C* __restrict__ weights;

  template <typename Task>
  __device__ void begin(const Task&) {}

  template <typename Task>
  __device__ __forceinline__ Sample<A> operator()(const Task& task, int number, const Level& level, int) const {
    const int64_t at = task.first_point() + number;
    const Pack<C, 2> location = load_pack<C, 2>(locations + 2 * at);
    return {to_pixels<A>(location[0], level.width), to_pixels<A>(location[1], level.height),
            weights == nullptr ? A(1) : static_cast<A>(widen(weights[at]))};
  }
};

// Samples around reference points, with the softmax of logits as their weights.
template <typename A, typename C>
struct FromOffsets {
  const C* __restrict__ offsets;     // (N, Q, M, L, P, 2)
  const C* __restrict__ logits;      // (N, Q, M, L, P)
  const A* __restrict__ references;  // (N, Q, L, coordinates): x, y or cx, cy, w, h
  int coordinates;
  A largest, share;  // of the task: the largest logit; one over the sum of the powers

  // Looks at all logits of the task. Every lane of the warp must call it.
  template <typename Task>
  __device__ __forceinline__ void begin(const Task& task) {
    A top = -INFINITY, sum = 0;
    task.share_points([&](int64_t p) { top = fmax(top, widen(logits[p])); });
    top = task.across(top, [](A a, A b) { return fmax(a, b); });
    task.share_points([&](int64_t p) { sum += exp(widen(logits[p]) - top); });
    largest = top;
    share = 1 / task.across(sum, [](A a, A b) { return a + b; });
  }

  template <typename Task>
  __device__ __forceinline__ Sample<A> operator()(const Task& task, int number, const Level& level, int l) const {
    const int64_t at = task.first_point() + number, query = task.row / task.sizes.heads;
    const Pack<C, 2> offset = load_pack<C, 2>(offsets + 2 * at);
    const A* const reference = references + (query * task.sizes.levels + l) * coordinates;
    const A weight = exp(widen(logits[at]) - largest) * share;
    if (coordinates == 2) {  // offsets in pixels
      return {to_pixels<A>(reference[0], level.width) + offset[0], to_pixels<A>(reference[1], level.height) + offset[1],
              weight};
    }
    const A part = A(0.5) / static_cast<A>(task.launch.points.by);  // of a side, for an offset of one
    return {to_pixels<A>(reference[0] + offset[0] * part * reference[2], level.width),
            to_pixels<A>(reference[1] + offset[1] * part * reference[3], level.height), weight};
  }
};

// For `count` points of the task's tile: calls body(number in the tile, point, terms), which sets N terms of this lane,
// and then on one lane finish(number, sums), with the sums of these over the lanes. Every lane of the warp must call it;
// the points of a group that is not active are anything.
template <int N, typename A, typename Task, typename Body, typename Finish>
__device__ __forceinline__ void sum_points(const Task& task, int count, const Body& body, const Finish& finish) {
  for (int first = 0; first < count; first += kBatch) {
    A terms[kBatch][N] = {};
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (first + b < count) body(first + b, task.tile.points[first + b], terms[b]);
    }
    // Two lanes give each other half of their points, and add what they are given to those that they keep.
    int step = task.lanes / 2, mine = first, kept = kBatch;
#pragma unroll
    for (int half = kBatch / 2; half > 0; half /= 2) {
      if (step == 0) break;
      const bool upper = task.lane & step;
#pragma unroll
      for (int b = 0; b < half; ++b) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const A given = upper ? terms[b][n] : terms[b + half][n], own = upper ? terms[b + half][n] : terms[b][n];
          terms[b][n] = own + __shfl_xor_sync(0xffffffffu, given, step);
        }
      }
      mine += upper ? half : 0;
      kept = half;
      step /= 2;
    }
    const int same = step > 0 ? 2 * step : 1;  // lanes that are left with the same points
    const bool finishes = task.active && task.lane % static_cast<unsigned>(same) == 0;
    for (; step > 0; step /= 2) {
#pragma unroll
      for (int n = 0; n < N; ++n) terms[0][n] += __shfl_xor_sync(0xffffffffu, terms[0][n], step);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (finishes && b < kept && mine + b < count) finish(mine + b, terms[b]);
    }
  }
  __syncwarp();  // all lanes may read what was written
}

}  // namespace detrbench
