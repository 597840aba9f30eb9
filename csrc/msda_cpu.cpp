#include "msda_cpu.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "passes.h"

namespace detrbench {
namespace {

// The sum over points and corners of share * row, V vectors from `offset` on. Corners take turns among several chains
// of additions, which overlap; as many as 16 registers leave room for.
template <int V, typename T, typename G>
DETRBENCH_INLINE void gather(const Corners<T, const G>& corners, int64_t offset, Vec<T>* sum) {
  constexpr int chains = V > 2 ? 2 : 4;
  Vec<T> partial[chains][V] = {};
  for_each_point(corners, [&](const CornerBlock<T, const G>& block, int i, int64_t) {
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
DETRBENCH_INLINE void gather_row(const Corners<Accumulate<T>, const G>& corners, int64_t padded, int64_t depth, T* row) {
  using A = Accumulate<T>;
  for_each_piece<A>(padded, [&](auto vectors, int64_t offset) __attribute__((always_inline)) {
    constexpr int V = decltype(vectors)::value;
    Vec<A> sum[V];
    gather<V>(corners, offset, sum);
    store_part<V>(row + offset, sum, depth - offset);
  });
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
      constexpr int V = decltype(vectors)::value;
      const Vectors<T, V> g = load_vectors<V>(gradient + offset);
      dot<V>(block, offset, [&](int) -> const Vectors<T, V>& { return g; }, dots);
    });
    const Vec<T> grad_weight = interpolate(block, dots);
    Vec<T> grad_x, grad_y;
    slopes(corners.table().blocks()[b], block, dots, load_part(weights, count), grad_x, grad_y);
    store_part<1>(grad_weights, &grad_weight, count);
    store_pairs(grad_locations, grad_x, grad_y, count);
    weights += count, grad_weights += count, grad_locations += 2 * count, left -= count;
  }
}

// First pass of the backward: gradients of the points, for each query apart.
template <typename T, typename Points>
void point_gradients(const Sizes& sizes, const Level* levels, const T* grad_output, const Points& points,
                     const Rows<const Gather<T>>& rows) {
  using A = Accumulate<T>;
  const PointTable<A> table(sizes, levels, 0, sizes.levels, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes);
  for_each_head(sizes, [&](int64_t image, int64_t head, int64_t first, int64_t last) {
    Corners<A, const Gather<T>> corners(table, padded);
    PointReader<Points> reader(sizes, levels, points);
    std::vector<A> gradient(padded);
    for (int64_t q = first; q < last; ++q) {
      const int64_t row = sizes.row(image, head, q), ahead = row + kAhead * sizes.heads;
      reader.prefetch(ahead);
      prefetch_lines(grad_output + ahead * sizes.depth, sizes.depth);
      reader.read(row);
      corners.prepare(reader.locations(), reader.weights(), rows.base(image, head));
      widen(grad_output + row * sizes.depth, sizes.depth, gradient.data());
      point_gradients_of(corners, padded, gradient.data(), reader.weights(), reader.grad_locations(),
                         reader.grad_weights());
      reader.write();
    }
  });
}

// Second pass: gradients of the values, of one head and levels [first, last), by its queries in order.
template <typename T, typename Points>
void value_gradients_of(const Sizes& sizes, const Level* levels, const T* grad_output, const Points& points,
                        const Rows<Accumulate<T>>& rows, int64_t image, int64_t head, int64_t first, int64_t last) {
  using A = Accumulate<T>;
  const PointTable<A> table(sizes, levels, first, last, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes), point = first * sizes.points;
  Corners<A, A> corners(table, padded);
  PointReader<Points> reader(sizes, levels, points);
  std::vector<A> gradient(padded);
  for (int64_t q = 0; q < sizes.queries; ++q) {
    const int64_t row = sizes.row(image, head, q), ahead = row + kAhead * sizes.heads;
    reader.prefetch(ahead);
    prefetch_lines(grad_output + ahead * sizes.depth, sizes.depth);
    reader.read(row);
    corners.prepare(reader.locations() + 2 * point, reader.weights() + point, rows.base(image, head));
    widen(grad_output + row * sizes.depth, sizes.depth, gradient.data());
    for_each_piece<A>(padded, [&](auto vectors, int64_t offset) {
      constexpr int V = decltype(vectors)::value;
      const Vectors<A, V> g = load_vectors<V>(gradient.data() + offset);
      scatter<V>(corners, offset, [&](int64_t) -> const Vectors<A, V>& { return g; });
    });
  }
}

}  // namespace

template <typename T, typename Points>
void msda_forward_cpu(const Sizes& sizes, const Level* levels, const Rows<const T>& value, const Points& points,
                      T* output) {
  using A = Accumulate<T>;
  using Corners = Corners<A, const Gather<T>>;
  Scratch& scratch = Scratch::of_this_thread();
  const Rows<const Gather<T>> rows = value_rows(sizes, value, scratch);
  const PointTable<A> table(sizes, levels, 0, sizes.levels, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes);
  for_each_head(sizes, [&](int64_t image, int64_t head, int64_t first, int64_t last) {
    Corners corners[2] = {Corners(table, padded), Corners(table, padded)};
    PointReader<Points> reader(sizes, levels, points);
    const auto prepare = [&](int64_t q) {
      const int64_t row = sizes.row(image, head, q);
      reader.prefetch(row + kAhead * sizes.heads);
      reader.read(row);
      corners[q % 2].prepare(reader.locations(), reader.weights(), rows.base(image, head));
    };
    prepare(first);
    for (int64_t q = first; q < last; ++q) {
      if (q + 1 < last) prepare(q + 1);  // ahead, so that its stores are done when its corners are gathered
      gather_row<T>(corners[q % 2], padded, sizes.depth, output + sizes.row(image, head, q) * sizes.depth);
    }
  });
  scratch.trim();
}

template <typename T, typename Points>
void msda_backward_cpu(const Sizes& sizes, const Level* levels, const T* grad_output, const Rows<const T>& value,
                       const Points& points, T* grad_value) {
  Scratch& scratch = Scratch::of_this_thread();
  point_gradients(sizes, levels, grad_output, points, value_rows(sizes, value, scratch));
  sum_by_owner(sizes, grad_value, scratch,
               [&](auto... owned) { value_gradients_of(sizes, levels, grad_output, points, owned...); });
  scratch.trim();
}

#define DETRBENCH_INSTANTIATE_FOR(T, Points)                                                                      \
  template void msda_forward_cpu<T, Points>(const Sizes&, const Level*, const Rows<const T>&, const Points&, T*); \
  template void msda_backward_cpu<T, Points>(const Sizes&, const Level*, const T*, const Rows<const T>&,          \
                                             const Points&, T*);
#define DETRBENCH_INSTANTIATE(T)                             \
  DETRBENCH_INSTANTIATE_FOR(T, GivenPoints<Accumulate<T>>)   \
  DETRBENCH_INSTANTIATE_FOR(T, OffsetPoints<Accumulate<T>>)
DETRBENCH_FOR_CPU_TYPES(DETRBENCH_INSTANTIATE)

}  // namespace detrbench
