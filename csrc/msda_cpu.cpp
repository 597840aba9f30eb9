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
void gather_row(const Corners<Accumulate<T>, const G>& corners, int64_t padded, int64_t depth, T* row) {
  using A = Accumulate<T>;
  for_each_piece<A>(padded, [&](auto vectors, int64_t offset) {
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

// What the queries read besides values; every array lies by (image, query, head).
template <typename T>
struct Inputs {
  const Sizes& sizes;
  const Level* levels;
  const Accumulate<T>* locations;
  const Accumulate<T>* weights;
  const T* grad_output = nullptr;

  // Must be inlined: GCC takes a function that only prefetches for one without effect, and drops its calls.
  DETRBENCH_INLINE void prefetch(int64_t row) const {
    prefetch_lines(locations + 2 * row * sizes.samples(), 2 * sizes.samples());
    prefetch_lines(weights + row * sizes.samples(), sizes.samples());
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
      const int64_t row = sizes.row(image, head, q), point = row * sizes.samples();
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
    const int64_t row = sizes.row(image, head, q), point = row * sizes.samples() + first * sizes.points;
    inputs.prefetch(row + kAhead * sizes.heads);
    corners.prepare(inputs.locations + 2 * point, inputs.weights + point, rows.base(image, head));
    widen(inputs.grad_output + row * sizes.depth, sizes.depth, gradient.data());
    for_each_piece<A>(padded, [&](auto vectors, int64_t offset) {
      constexpr int V = decltype(vectors)::value;
      const Vectors<A, V> g = load_vectors<V>(gradient.data() + offset);
      scatter<V>(corners, offset, [&](int64_t) -> const Vectors<A, V>& { return g; });
    });
  }
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
      const int64_t row = sizes.row(image, head, q), point = row * sizes.samples();
      inputs.prefetch(row + kAhead * sizes.heads);
      corners[q % 2].prepare(locations + 2 * point, weights + point, rows.base(image, head));
    };
    prepare(first);
    for (int64_t q = first; q < last; ++q) {
      if (q + 1 < last) prepare(q + 1);  // ahead, so that its stores are done when its corners are gathered
      gather_row<T>(corners[q % 2], padded, sizes.depth, output + sizes.row(image, head, q) * sizes.depth);
    }
  });
  scratch.trim();
}

template <typename T>
void msda_backward_cpu(const Sizes& sizes, const Level* levels, const T* grad_output, const T* value,
                       const Accumulate<T>* locations, const Accumulate<T>* weights, T* grad_value,
                       Accumulate<T>* grad_locations, Accumulate<T>* grad_weights) {
  const Inputs<T> inputs{sizes, levels, locations, weights, grad_output};
  Scratch& scratch = Scratch::of_this_thread();
  point_gradients(inputs, value_rows(sizes, value, scratch), grad_locations, grad_weights);
  sum_by_owner(sizes, grad_value, scratch, [&](auto... owned) { value_gradients_of(inputs, owned...); });
  scratch.trim();
}

#define DETRBENCH_INSTANTIATE(T)                                                                                    \
  template void msda_forward_cpu<T>(const Sizes&, const Level*, const T*, const Accumulate<T>*,                     \
                                    const Accumulate<T>*, T*);                                                      \
  template void msda_backward_cpu<T>(const Sizes&, const Level*, const T*, const T*, const Accumulate<T>*,          \
                                     const Accumulate<T>*, T*, Accumulate<T>*, Accumulate<T>*);
DETRBENCH_FOR_CPU_TYPES(DETRBENCH_INSTANTIATE)

}  // namespace detrbench
