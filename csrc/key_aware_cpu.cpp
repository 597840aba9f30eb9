#include "key_aware_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "passes.h"
#include "softmax.h"

namespace detrbench {
namespace {

// What one query and head needs, in one place that stays in the cache. Points fill whole vectors; those beyond the
// last have zeros for samples and no weight.
template <typename T>
struct Desk {
  Desk(int64_t points_, int64_t padded_)
      : points(points_),
        padded(padded_),
        weights(points_),
        grad_logits(points_),
        query(padded_),
        gradient(padded_),
        samples(weights.size() * padded_) {}

  T* sample(int64_t point) { return samples.data() + point * padded; }

  int64_t points, padded;
  Row<T> weights, grad_logits;  // by point
  Row<T> query, gradient;       // by channel
  Row<T> samples;               // by point and channel
};

// Logits are products divided by the root of the number of channels.
template <typename T>
T scale_of(const Sizes& sizes) {
  return 1 / std::sqrt(static_cast<T>(std::max<int64_t>(sizes.depth, 1)));
}

// The values at each point; the corners' shares must be those of the interpolation alone.
template <typename T, typename G>
DETRBENCH_INLINE void sample(const Corners<T, const G>& corners, Desk<T>& desk) {
  const int64_t padded = desk.padded;  // copied, here and below: stores might change what lies behind a reference
  T* const samples = desk.samples.data();
  for_each_piece<T>(padded, [&corners, samples, padded](auto vectors, int64_t offset) {
    constexpr int V = decltype(vectors)::value;
    for_each_point(corners, [samples, padded, offset](const CornerBlock<T, const G>& block, int i, int64_t p) {
      Vec<T> sum[V] = {};
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[v] += block.share[c][i] * load(block.address[c][i] + offset + v * kLanes<T>);
      }
      store_part<V>(samples + p * padded + offset, sum, V * kLanes<T>);
    });
  });
}

// The products of a row with the samples of one block of points, from `first` on.
template <typename T>
DETRBENCH_INLINE Vec<T> products(Desk<T>& desk, int64_t first, const T* row) {
  Vec<T> product[kLanes<T>] = {};
  const T* const samples = desk.sample(first);
  const int64_t padded = desk.padded;
  for_each_piece<T>(padded, [&](auto vectors, int64_t offset) {
    constexpr int V = decltype(vectors)::value;
    const Vectors<T, V> r = load_vectors<V>(row + offset);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) product[i] += r.at[v] * load(samples + i * padded + offset + v * kLanes<T>);
    }
  });
  return row_sums<T>(product);
}

// The sum over points of share * sample, `depth` channels of it.
template <typename T, typename A>
DETRBENCH_INLINE void combine(Desk<A>& desk, Row<A>& row, int64_t depth, T* to) {
  const A *const samples = desk.samples.data(), *const shares = row.data();
  const int64_t padded = desk.padded, count = row.size();
  for_each_piece<A>(padded, [&](auto vectors, int64_t offset) {
    constexpr int V = decltype(vectors)::value;
    Vec<A> even[V] = {}, odd[V] = {};  // two chains of additions, which overlap
    for (int64_t p = 0; p < count; p += 2) {
      const A* const sample = samples + p * padded + offset;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        even[v] += shares[p] * load(sample + v * kLanes<A>);
        odd[v] += shares[p + 1] * load(sample + padded + v * kLanes<A>);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) even[v] += odd[v];
    store_part<V>(to + offset, even, depth - offset);
  });
}

// What the queries read besides values; every array lies by (image, query, head).
template <typename T>
struct Inputs {
  const Sizes& sizes;
  const Level* levels;
  const Accumulate<T>* locations;
  const T* query;
  const Accumulate<T>* weights = nullptr;  // the rest is for the backward
  const T* grad_output = nullptr;

  // Must be inlined: GCC takes a function that only prefetches for one without effect, and drops its calls.
  DETRBENCH_INLINE void prefetch(int64_t row) const {
    prefetch_lines(locations + 2 * row * sizes.samples(), 2 * sizes.samples());
    prefetch_lines(query + row * sizes.depth, sizes.depth);
    if (weights != nullptr) prefetch_lines(weights + row * sizes.samples(), sizes.samples());
    if (grad_output != nullptr) prefetch_lines(grad_output + row * sizes.depth, sizes.depth);
  }
};

// Gradients of one query's logits, into the desk, and of the query itself. With weights w, output o and its gradient g,
// the gradient of logit p is w_p (g . sample_p - g . o).
template <typename T, typename A>
DETRBENCH_INLINE void query_gradient(Desk<A>& desk, const Sizes& sizes, T* grad_query) {
  A *weights = desk.weights.data(), *grad_logits = desk.grad_logits.data();
  Vec<A> total = {};
  for (int64_t p = 0; p < desk.points; p += kLanes<A>) {
    const Vec<A> product = products(desk, p, desk.gradient.data());
    store(grad_logits + p, product);
    total += load(weights + p) * product;
  }
  total = sum_across<A>(total);
  for (int64_t p = 0; p < desk.points; p += kLanes<A>) {
    store(grad_logits + p, load(weights + p) * (load(grad_logits + p) - total) * scale_of<A>(sizes));
  }
  combine(desk, desk.grad_logits, sizes.depth, grad_query);
}

// The gradient of sample p: through the output, and through the key that it also is.
template <int V, typename T>
DETRBENCH_INLINE Vectors<T, V> sample_gradient(const Vectors<T, V>& gradient, const Vectors<T, V>& query, T weight,
                                               T grad_logit) {
  Vectors<T, V> sum;
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) sum.at[v] = weight * gradient.at[v] + grad_logit * query.at[v];
  return sum;
}

// Turns the desk's samples into their gradients.
template <typename T>
DETRBENCH_INLINE void samples_to_gradients(Desk<T>& desk) {
  for_each_piece<T>(desk.padded, [&](auto vectors, int64_t offset) {
    constexpr int V = decltype(vectors)::value;
    const Vectors<T, V> gradient = load_vectors<V>(desk.gradient.data() + offset);
    const Vectors<T, V> query = load_vectors<V>(desk.query.data() + offset);
    for (int64_t p = 0; p < desk.points; ++p) {
      const T weight = desk.weights.data()[p], grad_logit = desk.grad_logits.data()[p];
      const Vectors<T, V> sum = sample_gradient<V>(gradient, query, weight, grad_logit);
      store_part<V>(desk.sample(p) + offset, sum.at, V * kLanes<T>);
    }
  });
}

// Gradients of one query's locations, from those of its samples.
template <typename T, typename G>
DETRBENCH_INLINE void location_gradients(const Corners<T, const G>& corners, Desk<T>& desk, T* grad_locations) {
  for (int64_t first = 0; first < desk.points; first += kLanes<T>) {
    const CornerBlock<T, const G>& block = corners.blocks()[first / kLanes<T>];
    Vec<T> dots[4] = {}, grad_x, grad_y;
    for_each_piece<T>(desk.padded, [&](auto vectors, int64_t offset) {
      constexpr int V = decltype(vectors)::value;
      dot<V>(block, offset, [&](int i) { return load_vectors<V>(desk.sample(first + i) + offset); }, dots);
    });
    slopes(corners.table().blocks()[first / kLanes<T>], block, dots, Vec<T>{} + 1, grad_x, grad_y);
    store_pairs(grad_locations + 2 * first, grad_x, grad_y, std::min<int64_t>(desk.points - first, kLanes<T>));
  }
}

// First pass of the backward: gradients of logits, queries and locations, for each query apart.
template <typename T>
void query_gradients(const Inputs<T>& inputs, const Rows<const Gather<T>>& rows, Accumulate<T>* grad_logits,
                     Accumulate<T>* grad_locations, T* grad_query) {
  using A = Accumulate<T>;
  const Sizes& sizes = inputs.sizes;
  const PointTable<A> table(sizes, inputs.levels, 0, sizes.levels, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes), points = sizes.samples();
  const std::vector<A> ones(points, A(1));
  for_each_head(sizes, [&](int64_t image, int64_t head, int64_t first, int64_t last) {
    Corners<A, const Gather<T>> corners(table, padded);
    Desk<A> desk(points, padded);
    for (int64_t q = first; q < last; ++q) {
      const int64_t row = sizes.row(image, head, q), point = row * points, channel = row * sizes.depth;
      inputs.prefetch(row + kAhead * sizes.heads);
      corners.prepare(inputs.locations + 2 * point, ones.data(), rows.base(image, head));
      sample(corners, desk);
      widen(inputs.query + channel, sizes.depth, desk.query.data());
      widen(inputs.grad_output + channel, sizes.depth, desk.gradient.data());
      std::copy_n(inputs.weights + point, points, desk.weights.data());
      query_gradient(desk, sizes, grad_query + channel);
      std::copy_n(desk.grad_logits.data(), points, grad_logits + point);
      samples_to_gradients(desk);
      location_gradients(corners, desk, grad_locations + 2 * point);
    }
  });
}

// Second pass: gradients of the values, of one head and levels [first, last), by its queries in order.
template <typename T>
void value_gradients_of(const Inputs<T>& inputs, const Accumulate<T>* grad_logits, const Rows<Accumulate<T>>& rows,
                        int64_t image, int64_t head, int64_t first, int64_t last) {
  using A = Accumulate<T>;
  const Sizes& sizes = inputs.sizes;
  const PointTable<A> table(sizes, inputs.levels, first, last, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes);
  const std::vector<A> ones(table.size(), A(1));
  Corners<A, A> corners(table, padded);
  Row<A> query(padded), gradient(padded);
  for (int64_t q = 0; q < sizes.queries; ++q) {
    const int64_t row = sizes.row(image, head, q), point = row * sizes.samples() + first * sizes.points;
    inputs.prefetch(row + kAhead * sizes.heads);
    corners.prepare(inputs.locations + 2 * point, ones.data(), rows.base(image, head));
    widen(inputs.query + row * sizes.depth, sizes.depth, query.data());
    widen(inputs.grad_output + row * sizes.depth, sizes.depth, gradient.data());
    for_each_piece<A>(padded, [&](auto vectors, int64_t offset) {
      constexpr int V = decltype(vectors)::value;
      const Vectors<A, V> g = load_vectors<V>(gradient.data() + offset), k = load_vectors<V>(query.data() + offset);
      scatter<V>(corners, offset, [&](int64_t p) {
        return sample_gradient<V>(g, k, inputs.weights[point + p], grad_logits[point + p]);
      });
    });
  }
}

}  // namespace

template <typename T>
void key_aware_forward_cpu(const Sizes& sizes, const Level* levels, const Rows<const T>& value,
                           const Accumulate<T>* locations, const T* query, T* output, Accumulate<T>* weights) {
  using A = Accumulate<T>;
  using Corners = Corners<A, const Gather<T>>;
  const Inputs<T> inputs{sizes, levels, locations, query};
  Scratch& scratch = Scratch::of_this_thread();
  const Rows<const Gather<T>> rows = value_rows(sizes, value, scratch);
  const PointTable<A> table(sizes, levels, 0, sizes.levels, rows.token_bytes());
  const int64_t padded = padded_depth<T>(sizes), points = sizes.samples();
  const std::vector<A> ones(points, A(1));
  const A scale = scale_of<A>(sizes);
  for_each_head(sizes, [&](int64_t image, int64_t head, int64_t first, int64_t last) {
    Corners corners[2] = {Corners(table, padded), Corners(table, padded)};
    Desk<A> desk(points, padded);
    const auto prepare = [&](int64_t q) {
      const int64_t row = sizes.row(image, head, q);
      inputs.prefetch(row + kAhead * sizes.heads);
      corners[q % 2].prepare(locations + 2 * row * points, ones.data(), rows.base(image, head));
    };
    prepare(first);
    for (int64_t q = first; q < last; ++q) {
      if (q + 1 < last) prepare(q + 1);  // ahead, so that its stores are done when its corners are gathered
      const int64_t row = sizes.row(image, head, q);
      sample(corners[q % 2], desk);
      widen(query + row * sizes.depth, sizes.depth, desk.query.data());
      for (int64_t p = 0; p < points; p += kLanes<A>) {
        store(desk.weights.data() + p, products(desk, p, desk.query.data()) * scale);
      }
      softmax(desk.weights, points);
      std::copy_n(desk.weights.data(), points, weights + row * points);
      combine(desk, desk.weights, sizes.depth, output + row * sizes.depth);
    }
  });
  scratch.trim();
}

template <typename T>
void key_aware_backward_cpu(const Sizes& sizes, const Level* levels, const T* grad_output, const Rows<const T>& value,
                            const Accumulate<T>* locations, const T* query, const Accumulate<T>* weights,
                            Accumulate<T>* grad_logits, T* grad_value, Accumulate<T>* grad_locations, T* grad_query) {
  const Inputs<T> inputs{sizes, levels, locations, query, weights, grad_output};
  Scratch& scratch = Scratch::of_this_thread();
  query_gradients(inputs, value_rows(sizes, value, scratch), grad_logits, grad_locations, grad_query);
  sum_by_owner(sizes, grad_value, scratch,
               [&](auto... owned) { value_gradients_of(inputs, grad_logits, owned...); });
  scratch.trim();
}

#define DETRBENCH_INSTANTIATE(T)                                                                                      \
  template void key_aware_forward_cpu<T>(const Sizes&, const Level*, const Rows<const T>&, const Accumulate<T>*,      \
                                         const T*, T*, Accumulate<T>*);                                               \
  template void key_aware_backward_cpu<T>(const Sizes&, const Level*, const T*, const Rows<const T>&,                 \
                                          const Accumulate<T>*, const T*, const Accumulate<T>*, Accumulate<T>*, T*,   \
                                          Accumulate<T>*, T*);
DETRBENCH_FOR_CPU_TYPES(DETRBENCH_INSTANTIATE)

}  // namespace detrbench
