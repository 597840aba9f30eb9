// What the CPU kernels share: who works on what, and the inner loops over the corners of sampled points.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "head_major.h"
#include "sampling.h"

namespace detrbench {

// X(T) for each type of values that the CPU kernels are compiled for.
#define DETRBENCH_FOR_CPU_TYPES(X) X(float) X(double) X(c10::BFloat16) X(c10::Half)

constexpr int kMaxVectors = 4;          // vectors of a row that are kept in registers
constexpr int64_t kQueriesAtOnce = 32;  // least work worth a thread
constexpr int64_t kAhead = 8;           // queries; a head's inputs lie too far apart for the hardware to prefetch

// Calls body(image, head, first query, last query) so that each (image, head, query) is visited once; a thread gets
// consecutive ones, head by head, and so stays within one head's values.
template <typename Body>
void for_each_head(const Sizes& sizes, const Body& body) {
  const int64_t total = sizes.images * sizes.heads * sizes.queries;
  at::parallel_for(0, total, kQueriesAtOnce, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t head = begin / sizes.queries;
      const int64_t last = std::min(end, (head + 1) * sizes.queries);
      body(head / sizes.heads, head % sizes.heads, begin - head * sizes.queries, last - head * sizes.queries);
      begin = last;
    }
  });
}

// Calls body(image, head, first level, last level) so that one thread owns the values of a head, or of a level of a
// head where threads outnumber heads: they add to them without atomics, the same sums whatever the number of threads.
template <typename Body>
void for_each_owner(const Sizes& sizes, const Body& body) {
  const int64_t heads = sizes.images * sizes.heads;
  const int64_t shares = heads < at::get_num_threads() ? sizes.levels : 1;
  const int64_t levels = sizes.levels / shares;
  at::parallel_for(0, heads * shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task / shares, first = task % shares * levels;
      body(head / sizes.heads, head % sizes.heads, first, first + levels);
    }
  });
}

// Calls body(std::integral_constant<int, V>, offset) for each piece of V vectors of a row.
template <typename T, typename Body>
DETRBENCH_INLINE void for_each_piece(int64_t padded, const Body& body) {
  int64_t offset = 0;
  for (; offset + kMaxVectors * kLanes<T> <= padded; offset += kMaxVectors * kLanes<T>) {
    body(std::integral_constant<int, kMaxVectors>{}, offset);
  }
  switch ((padded - offset) / kLanes<T>) {
    case 1: return body(std::integral_constant<int, 1>{}, offset);
    case 2: return body(std::integral_constant<int, 2>{}, offset);
    case 3: return body(std::integral_constant<int, 3>{}, offset);
    default: return;
  }
}

// V vectors of a row.
template <typename T, int V>
struct Vectors {
  Vec<T> at[V];
};

template <int V, typename T>
DETRBENCH_INLINE Vectors<T, V> load_vectors(const T* from) {
  Vectors<T, V> vectors;
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) vectors.at[v] = load(from + v * kLanes<T>);
  return vectors;
}

// dots[corner] += the products of gradient(i), V vectors for point i of the block, with the corner's rows; nothing for
// corners outside, whose zeros infinity in a gradient must not meet.
template <int V, typename T, typename G, typename Gradient>
DETRBENCH_INLINE void dot(const CornerBlock<T, const G>& block, int64_t offset, const Gradient& gradient,
                          Vec<T>* dots) {
#pragma GCC unroll 1
  for (int c = 0; c < 4; ++c) {
    Vec<T> product[kLanes<T>];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      const G* row = block.address[c][i] + offset;
      const Vectors<T, V>& g = gradient(i);
      product[i] = g.at[0] * load(row);
#pragma GCC unroll 4
      for (int v = 1; v < V; ++v) product[i] += g.at[v] * load(row + v * kLanes<T>);
    }
    dots[c] += (block.inside & (1 << c)) != 0 ? row_sums<T>(product) : Vec<T>{};
  }
}

// What a block's points read, given what their corners hold; zero where they reach no pixel.
template <typename T, typename G>
DETRBENCH_INLINE Vec<T> interpolate(const CornerBlock<T, G>& block, const Vec<T>* corners) {
  const Vec<T> top = corners[0] + (corners[1] - corners[0]) * block.right;
  const Vec<T> bottom = corners[2] + (corners[3] - corners[2]) * block.right;
  return block.inside != 0 ? top + (bottom - top) * block.down : Vec<T>{};
}

// How weight * interpolate(...) changes with the location.
template <typename T, typename G>
DETRBENCH_INLINE void slopes(const LevelBlock<T>& level, const CornerBlock<T, G>& block, const Vec<T>* corners,
                             Vec<T> weights, Vec<T>& along_x, Vec<T>& along_y) {
  const Vec<T> zero = {};
  const Vec<T> across_top = corners[1] - corners[0], across_bottom = corners[3] - corners[2];
  const Vec<T> top = corners[0] + across_top * block.right, bottom = corners[2] + across_bottom * block.right;
  const Vec<T> across = across_top + (across_bottom - across_top) * block.down;
  along_x = block.inside != 0 ? across * weights * level.width : zero;
  along_y = block.inside != 0 ? (bottom - top) * weights * level.height : zero;
}

// Writes x and y of `count` points in turn.
template <typename T>
DETRBENCH_INLINE void store_pairs(T* to, Vec<T> x, Vec<T> y, int64_t count) {
  const Vec<T> pairs[2] = {interleave<T>(x, y, 0), interleave<T>(x, y, kLanes<T> / 2)};
  store_part<2>(to, pairs, 2 * count);
}

// Adds share * gradient(p), V vectors, to the row of every corner of every point p.
template <int V, typename T, typename Gradient>
DETRBENCH_INLINE void scatter(const Corners<T, T>& corners, int64_t offset, const Gradient& gradient) {
  for_each_point(corners, [&](const CornerBlock<T, T>& block, int i, int64_t p) {
    const Vectors<T, V>& g = gradient(p);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      T* row = block.address[c][i] + offset;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(row + v * kLanes<T>, load(row + v * kLanes<T>) + block.share[c][i] * g.at[v]);
    }
  });
}

template <typename A>
void clear(A* memory, int64_t count) {
  at::parallel_for(0, count, 1 << 16,
                   [=](int64_t begin, int64_t end) { std::fill(memory + begin, memory + end, A(0)); });
}

// Calls body(rows, image, head, first level, last level) for each owner, and leaves in grad_value, (N, S, M, D), what it
// adds to rows.
template <typename T, typename Body>
void sum_by_owner(const Sizes& sizes, T* grad_value, Scratch& scratch, const Body& body) {
  using A = Accumulate<T>;
  const int64_t depth = sizes.depth;
  const Rows<T> gradients = token_major_rows(sizes, grad_value);
  const auto sum = [&](const Rows<A>& rows) {
    for_each_owner(sizes, [&](auto... owned) { body(rows, owned...); });
  };
  if constexpr (std::is_same_v<T, A>) {
    if (padded_depth<T>(sizes) == depth && few_reads(sizes)) {
      clear(grad_value, sizes.images * sizes.tokens * sizes.heads * depth);
      return sum(gradients);
    }
  }
  A* sums = static_cast<A*>(scratch.take(head_major_size<T>(sizes) * sizeof(A)));
  clear(sums, head_major_size<T>(sizes));
  const Rows<A> rows = head_major_rows<T>(sizes, sums);
  sum(rows);
  for_each_row(sizes, gradients, rows, [=](T* to, const A* from) {
    for (int64_t d = 0; d < depth; ++d) to[d] = static_cast<T>(from[d]);
  });
}

}  // namespace detrbench
