#include "msda_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "head_major.h"
#include "sampling.h"

namespace detrbench {
namespace {

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

// The sum over points and corners of share * row, V vectors from `offset` on. Corners take turns among several chains
// of additions, which overlap; as many as 16 registers leave room for.
template <int V, typename T, typename G>
DETRBENCH_INLINE void gather(const Corners<T, const G>& corners, int64_t offset, Vec<T>* sum) {
  constexpr int chains = V > 2 ? 2 : 4;
  Vec<T> partial[chains][V] = {};
  for_each_point(corners, [&](const CornerBlock<T, const G>& block, int i) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        partial[c % chains][v] += block.share[c][i] * load(block.address[c][i] + offset + v * kLanes<T>);
      }
    }
  });
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    sum[v] = partial[0][v] + partial[1][v];
    if constexpr (chains == 4) sum[v] += partial[2][v] + partial[3][v];
  }
}

template <typename T, typename G>
void gather_row(const Corners<Accumulate<T>, const G>& corners, int64_t padded, int64_t depth, T* row) {
  using A = Accumulate<T>;
  for_each_piece<A>(padded, [&](auto vectors, int64_t offset) {
    constexpr int V = decltype(vectors)::value;
    Vec<A> sum[V];
    gather<V>(corners, offset, sum);
    store_part<V>(row + offset, sum, depth - offset);
  });
}

// dots[corner][point] += the product of V vectors of `gradient` with the corner's row.
template <int V, typename T, typename G>
DETRBENCH_INLINE void dot(const CornerBlock<T, const G>& block, int64_t offset, const T* gradient, Vec<T>* dots) {
  Vec<T> g[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) g[v] = load(gradient + offset + v * kLanes<T>);
#pragma GCC unroll 1
  for (int c = 0; c < 4; ++c) {
    Vec<T> product[kLanes<T>];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      const G* row = block.address[c][i] + offset;
      product[i] = g[0] * load(row);
#pragma GCC unroll 4
      for (int v = 1; v < V; ++v) product[i] += g[v] * load(row + v * kLanes<T>);
    }
    dots[c] += row_sums<T>(product);
  }
}

// Gradients of a block's locations and weights.
template <typename T, typename G>
DETRBENCH_INLINE void finish(const LevelBlock<T>& level, const CornerBlock<T, const G>& block, Vec<T> weights,
                             const Vec<T>* dots, Vec<T>& grad_x, Vec<T>& grad_y, Vec<T>& grad_weights) {
  const Vec<T> zero = {};
  const Vec<T> across_top = dots[1] - dots[0], across_bottom = dots[3] - dots[2];
  const Vec<T> top = dots[0] + across_top * block.right, bottom = dots[2] + across_bottom * block.right;
  const Vec<T> across = across_top + (across_bottom - across_top) * block.down;
  grad_weights = block.reached ? top + (bottom - top) * block.down : zero;
  grad_x = block.reached ? across * weights * level.width : zero;
  grad_y = block.reached ? (bottom - top) * weights * level.height : zero;
}

// Gradients of one query's locations and weights; `gradient` is that of its output, padded.
template <typename T, typename G>
void point_gradients_of(const Corners<T, const G>& corners, int64_t padded, const T* gradient, const T* weights,
                        T* grad_locations, T* grad_weights) {
  int64_t left = corners.size();
  for (size_t b = 0; b < corners.blocks().size(); ++b) {
    const CornerBlock<T, const G>& block = corners.blocks()[b];
    const int64_t count = std::min<int64_t>(left, kLanes<T>);
    Vec<T> dots[4] = {};
    for_each_piece<T>(padded, [&](auto vectors, int64_t offset) {
      dot<decltype(vectors)::value>(block, offset, gradient, dots);
    });
    Vec<T> grad_x, grad_y, grad_weight;
    finish(corners.table().blocks()[b], block, load_part(weights, count), dots, grad_x, grad_y, grad_weight);
    store_part<1>(grad_weights, &grad_weight, count);
    const Vec<T> pairs[2] = {interleave<T>(grad_x, grad_y, 0), interleave<T>(grad_x, grad_y, kLanes<T> / 2)};
    store_part<2>(grad_locations, pairs, 2 * count);
    weights += count, grad_weights += count, grad_locations += 2 * count, left -= count;
  }
}

// Adds share * gradient to the row of every corner.
template <int V, typename T>
DETRBENCH_INLINE void scatter(const Corners<T, T>& corners, int64_t offset, const T* gradient) {
  Vec<T> g[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) g[v] = load(gradient + offset + v * kLanes<T>);
  for_each_point(corners, [&](const CornerBlock<T, T>& block, int i) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      T* row = block.address[c][i] + offset;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(row + v * kLanes<T>, load(row + v * kLanes<T>) + block.share[c][i] * g[v]);
    }
  });
}

// What the queries read besides values; every array lies by (image, query, head).
template <typename T>
struct Inputs {
  const Sizes& sizes;
  const Level* levels;
  const Accumulate<T>* locations;
  const Accumulate<T>* weights;
  const T* grad_output = nullptr;

  int64_t points() const { return sizes.levels * sizes.points; }

  int64_t row(int64_t image, int64_t head, int64_t query) const {
    return (image * sizes.queries + query) * sizes.heads + head;
  }

  // Must be inlined: GCC takes a function that only prefetches for one without effect, and drops its calls.
  DETRBENCH_INLINE void prefetch(int64_t row) const {
    prefetch_lines(locations + 2 * row * points(), 2 * points());
    prefetch_lines(weights + row * points(), points());
    if (grad_output != nullptr) prefetch_lines(grad_output + row * sizes.depth, sizes.depth);
  }
};

// First pass of the backward: gradients of locations and weights, for each query apart.
template <typename T>
void point_gradients(const Inputs<T>& inputs, const Rows<const Gather<T>>& rows, Accumulate<T>* grad_locations,
                     Accumulate<T>* grad_weights) {
  using A = Accumulate<T>;
  const Sizes& sizes = inputs.sizes;
  const PointTable<A> table(sizes, inputs.levels, 0, sizes.levels, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes);
  for_each_head(sizes, [&](int64_t image, int64_t head, int64_t first, int64_t last) {
    Corners<A, const Gather<T>> corners(table, padded);
    std::vector<A> gradient(padded);
    for (int64_t q = first; q < last; ++q) {
      const int64_t row = inputs.row(image, head, q), point = row * inputs.points();
      inputs.prefetch(row + kAhead * sizes.heads);
      corners.prepare(inputs.locations + 2 * point, inputs.weights + point, rows.base(image, head));
      widen(inputs.grad_output + row * sizes.depth, sizes.depth, gradient.data());
      point_gradients_of(corners, padded, gradient.data(), inputs.weights + point, grad_locations + 2 * point,
                         grad_weights + point);
    }
  });
}

// Second pass: gradients of the values, of one head and levels [first, last), by its queries in order.
template <typename T>
void value_gradients_of(const Inputs<T>& inputs, const Rows<Accumulate<T>>& rows, int64_t image, int64_t head,
                        int64_t first, int64_t last) {
  using A = Accumulate<T>;
  const Sizes& sizes = inputs.sizes;
  const PointTable<A> table(sizes, inputs.levels, first, last, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes);
  Corners<A, A> corners(table, padded);
  std::vector<A> gradient(padded);
  for (int64_t q = 0; q < sizes.queries; ++q) {
    const int64_t row = inputs.row(image, head, q), point = row * inputs.points() + first * sizes.points;
    inputs.prefetch(row + kAhead * sizes.heads);
    corners.prepare(inputs.locations + 2 * point, inputs.weights + point, rows.base(image, head));
    widen(inputs.grad_output + row * sizes.depth, sizes.depth, gradient.data());
    for_each_piece<A>(padded, [&](auto vectors, int64_t offset) {
      scatter<decltype(vectors)::value>(corners, offset, gradient.data());
    });
  }
}

// One thread owns a head, or a level of a head where threads outnumber heads: no atomics, and the same sums whatever
// the number of threads.
template <typename T>
void value_gradients(const Inputs<T>& inputs, const Rows<Accumulate<T>>& rows) {
  const Sizes& sizes = inputs.sizes;
  const int64_t heads = sizes.images * sizes.heads;
  const int64_t shares = heads < at::get_num_threads() ? sizes.levels : 1;
  const int64_t levels = sizes.levels / shares;
  at::parallel_for(0, heads * shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task / shares, first = task % shares * levels;
      value_gradients_of(inputs, rows, head / sizes.heads, head % sizes.heads, first, first + levels);
    }
  });
}

template <typename A>
void clear(A* memory, int64_t count) {
  at::parallel_for(0, count, 1 << 16,
                   [=](int64_t begin, int64_t end) { std::fill(memory + begin, memory + end, A(0)); });
}

}  // namespace

template <typename T>
void msda_forward_cpu(const Sizes& sizes, const Level* levels, const T* value, const Accumulate<T>* locations,
                      const Accumulate<T>* weights, T* output) {
  using A = Accumulate<T>;
  using Corners = Corners<A, const Gather<T>>;
  const Inputs<T> inputs{sizes, levels, locations, weights};
  Scratch& scratch = Scratch::of_this_thread();
  const Rows<const Gather<T>> rows = value_rows(sizes, value, scratch);
  const PointTable<A> table(sizes, levels, 0, sizes.levels, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes);
  for_each_head(sizes, [&](int64_t image, int64_t head, int64_t first, int64_t last) {
    Corners corners[2] = {Corners(table, padded), Corners(table, padded)};
    const auto prepare = [&](int64_t q) {
      const int64_t row = inputs.row(image, head, q), point = row * inputs.points();
      inputs.prefetch(row + kAhead * sizes.heads);
      corners[q % 2].prepare(locations + 2 * point, weights + point, rows.base(image, head));
    };
    prepare(first);
    for (int64_t q = first; q < last; ++q) {
      if (q + 1 < last) prepare(q + 1);  // ahead, so that its stores are done when its corners are gathered
      gather_row<T>(corners[q % 2], padded, sizes.depth, output + inputs.row(image, head, q) * sizes.depth);
    }
  });
  scratch.trim();
}

template <typename T>
void msda_backward_cpu(const Sizes& sizes, const Level* levels, const T* grad_output, const T* value,
                       const Accumulate<T>* locations, const Accumulate<T>* weights, T* grad_value,
                       Accumulate<T>* grad_locations, Accumulate<T>* grad_weights) {
  using A = Accumulate<T>;
  const Inputs<T> inputs{sizes, levels, locations, weights, grad_output};
  Scratch& scratch = Scratch::of_this_thread();
  point_gradients(inputs, value_rows(sizes, value, scratch), grad_locations, grad_weights);
  if constexpr (std::is_same_v<T, A>) {
    if (!needs_copy<T>(sizes)) {  // the sums need no place of their own
      clear(grad_value, sizes.images * sizes.tokens * sizes.heads * sizes.depth);
      return value_gradients(inputs, token_major_rows<A>(sizes, grad_value));
    }
  }
  A* sums = static_cast<A*>(scratch.take(head_major_size<T>(sizes) * sizeof(A)));  // where the copied values were
  clear(sums, head_major_size<T>(sizes));
  value_gradients(inputs, head_major_rows<T, A>(sizes, sums));
  from_head_major(sizes, sums, grad_value);
  scratch.trim();
}

#define DETRBENCH_INSTANTIATE(T)                                                                                    \
  template void msda_forward_cpu<T>(const Sizes&, const Level*, const T*, const Accumulate<T>*,                     \
                                    const Accumulate<T>*, T*);                                                      \
  template void msda_backward_cpu<T>(const Sizes&, const Level*, const T*, const T*, const Accumulate<T>*,          \
                                     const Accumulate<T>*, T*, Accumulate<T>*, Accumulate<T>*);
DETRBENCH_INSTANTIATE(float)
DETRBENCH_INSTANTIATE(double)
DETRBENCH_INSTANTIATE(c10::BFloat16)
DETRBENCH_INSTANTIATE(c10::Half)

}  // namespace detrbench
