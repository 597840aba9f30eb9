#include "key_aware_cuda.h"

#include "corners.cuh"

namespace detrbench {
namespace {

// The work of a thread on one (image, query, head), which its group shares.
template <typename T, typename C>
struct Task {
  using A = Accumulate<T>;
  const Sizes& sizes;
  const DeviceLevels& levels;
  const C* locations;
  Tile<A>& tile;
  Group group;
  bool active;     // the last groups of a grid may have no query
  int64_t points;  // of the query and head
  int64_t first_point, first_channel, first_value;  // where their points, channels and values begin
  A scale;         // of the logits

  __device__ Task(const Sizes& sizes_, const DeviceLevels& levels_, int lanes, const C* locations_, Tile<A>* tiles)
      : sizes(sizes_),
        levels(levels_),
        locations(locations_),
        tile(tiles[threadIdx.x / lanes]),
        group(lanes),
        active(group.index < sizes.images * sizes.queries * sizes.heads),
        points(sizes.levels * sizes.points),
        first_point(group.index * points),
        first_channel(group.index * sizes.depth),
        first_value(group.index / (sizes.queries * sizes.heads) * sizes.tokens * sizes.heads * sizes.depth +
                    group.index % sizes.heads * sizes.depth),
        scale(1 / sqrt(static_cast<A>(sizes.depth))) {}

  __device__ int64_t row() const { return sizes.heads * sizes.depth; }

  // Calls body(first of V channels, working, more) for the channels that this lane takes in turn, in step with its
  // warp; `working` if it has such channels, `more` if these are not its first.
  template <int V, typename Body>
  __device__ __forceinline__ void for_each_channel(const Body& body) const {
    for (int64_t first = 0; first < sizes.depth; first += group.lanes * V) {
      const int64_t channel = first + group.lane * V;
      body(channel, active && channel < sizes.depth, first > 0);
    }
  }

  template <typename Weight, typename Body>
  __device__ __forceinline__ void visit(const Weight& weight, const Body& body) const {
    for_each_point(sizes, levels, group, active, locations, weight, tile, body);
  }

  // Calls body(p) for the points, each on one lane of the group.
  template <typename Body>
  __device__ __forceinline__ void share_points(const Body& body) const {
    for (int64_t p = first_point + group.lane; active && p < first_point + points; p += group.lanes) body(p);
  }
};

// The channels of x that a lane works on, zeros if none.
template <int V, typename T, typename A>
__device__ __forceinline__ void load_row(const T* x, bool working, A* to) {
#pragma unroll
  for (int v = 0; v < V; ++v) to[v] = A(0);
  if (working) add(load_pack<T, V>(x), A(1), to);
}

// products[p] = the product of x's row with the sample of point p, for all points of the task.
template <int V, typename T, typename C, typename A>
__device__ __forceinline__ void multiply_samples(const Task<T, C>& task, const T* value, const T* x, A* products) {
  const auto no_weight = [](int64_t) { return A(1); };
  task.template for_each_channel<V>([&](int64_t channel, bool working, bool more) {
    A row[V];
    load_row<V>(x + task.first_channel + channel, working, row);
    task.visit(no_weight, [&](const Point<A>& point, int64_t number, bool mine) {
      A dots[4] = {};
      if (working) {
        Pack<T, V> corners[4];
        load_corners(point, value + task.first_value + channel, task.row(), corners);
        dot_corners(point, corners, row, dots);
      }
      const A product = task.group.sum(interpolate(point, dots));
      if (mine) put(products + task.first_point + number, product, more);
    });
  });
  __syncwarp();  // other lanes read what this one has written
}

// Logits to weights, in place.
template <typename T, typename C, typename A>
__device__ __forceinline__ void softmax(const Task<T, C>& task, A* x) {
  A largest = -INFINITY, sum = 0;
  task.share_points([&](int64_t p) { largest = x[p] > largest ? x[p] : largest; });
  largest = task.group.largest(largest);
  task.share_points([&](int64_t p) {
    x[p] = exp((x[p] - largest) * task.scale);
    sum += x[p];
  });
  sum = task.group.sum(sum);
  task.share_points([&](int64_t p) { x[p] /= sum; });
  __syncwarp();
}

template <typename T, typename C, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Sizes sizes, const DeviceLevels levels, const int lanes, const T* __restrict__ value,
                   const C* __restrict__ locations, const T* __restrict__ query, T* __restrict__ output,
                   Accumulate<T>* __restrict__ weights) {
  using A = Accumulate<T>;
  __shared__ Tile<A> tiles[kMaxGroups];
  check_levels(sizes, levels);
  const Task<T, C> task(sizes, levels, lanes, locations, tiles);
  multiply_samples<V>(task, value, query, weights);
  softmax(task, weights);
  const auto weight = [&](int64_t at) { return weights[at]; };
  task.template for_each_channel<V>([&](int64_t channel, bool working, bool) {
    A sum[V] = {};
    task.visit(weight, [&](const Point<A>& point, int64_t, bool) {
      if (!working) return;
      Pack<T, V> corners[4];
      load_corners(point, value + task.first_value + channel, task.row(), corners);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (point.token[c] >= 0) add(corners[c], point.weight * bilinear(point, c), sum);
      }
    });
    if (working) store_pack<T, V>(output + task.first_channel + channel, sum);
  });
}

// Products of the output's gradient with the samples to gradients of the unscaled logits, in place: with weights w,
// output o and its gradient g, the gradient of logit p is w_p (g . sample_p - g . o).
template <typename T, typename C, typename A>
__device__ __forceinline__ void softmax_backward(const Task<T, C>& task, const A* weights, A* x) {
  A total = 0;
  task.share_points([&](int64_t p) { total += weights[p] * x[p]; });
  total = task.group.sum(total);
  task.share_points([&](int64_t p) { x[p] = weights[p] * (x[p] - total) * task.scale; });
  __syncwarp();
}

template <typename T, typename C, int V>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Sizes sizes, const DeviceLevels levels, const int lanes, const T* __restrict__ grad_output,
                    const T* __restrict__ value, const C* __restrict__ locations, const T* __restrict__ query,
                    const Accumulate<T>* __restrict__ weights, Accumulate<T>* __restrict__ grad_logits,
                    Accumulate<T>* __restrict__ grad_value, C* __restrict__ grad_locations,
                    T* __restrict__ grad_query) {
  using A = Accumulate<T>;
  __shared__ Tile<A> tiles[kMaxGroups];
  check_levels(sizes, levels);
  const Task<T, C> task(sizes, levels, lanes, locations, tiles);
  multiply_samples<V>(task, value, grad_output, grad_logits);
  softmax_backward(task, weights, grad_logits);
  const auto weight = [&](int64_t at) { return weights[at]; };
  task.template for_each_channel<V>([&](int64_t channel, bool working, bool more) {
    const int64_t offset = task.first_value + channel;
    A gradient[V], asked[V], sum[V] = {};
    load_row<V>(grad_output + task.first_channel + channel, working, gradient);
    load_row<V>(query + task.first_channel + channel, working, asked);
    task.visit(weight, [&](const Point<A>& point, int64_t number, bool mine) {
      A dots[4] = {};
      if (working) {
        // The sample's gradient: through the output, and through the key that it also is.
        const A grad_logit = grad_logits[task.first_point + number];
        A both[V];
#pragma unroll
        for (int v = 0; v < V; ++v) both[v] = point.weight * gradient[v] + grad_logit * asked[v];
        Pack<T, V> corners[4];
        load_corners(point, value + offset, task.row(), corners);
        dot_corners(point, corners, both, dots);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (point.token[c] < 0) continue;
          add(corners[c], grad_logit * bilinear(point, c), sum);
          add_atomically<V>(grad_value + offset + point.token[c] * task.row(), bilinear(point, c), both);
        }
      }
      A right, down;
      slopes(point, dots, right, down);
      right = task.group.sum(right), down = task.group.sum(down);
      if (!mine) return;
      const Level level = level_at(levels, number / sizes.points);
      C* to = grad_locations + 2 * (task.first_point + number);
      put(to, right * static_cast<A>(level.width), more);
      put(to + 1, down * static_cast<A>(level.height), more);
    });
    if (working) store_pack<T, V>(grad_query + task.first_channel + channel, sum);
  });
}

}  // namespace

template <typename T, typename C, typename A>
void key_aware_forward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* locations,
                            const T* query, T* output, A* weights, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(T);
  if (packs<T>(sizes, {value, query, output})) {
    const Launch launch = plan(sizes, V);
    forward_kernel<T, C, V><<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch.lanes, value, locations,
                                                                          query, output, weights);
  } else {
    const Launch launch = plan(sizes, 1);
    forward_kernel<T, C, 1><<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch.lanes, value, locations,
                                                                          query, output, weights);
  }
}

template <typename T, typename C, typename A>
void key_aware_backward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                             const C* locations, const T* query, const A* weights, A* grad_logits, A* grad_value,
                             C* grad_locations, T* grad_query, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(T);
  if (packs<T>(sizes, {value, query, grad_output, grad_value, grad_query})) {
    const Launch launch = plan(sizes, V);
    backward_kernel<T, C, V><<<launch.blocks, launch.threads, 0, stream>>>(
        sizes, levels, launch.lanes, grad_output, value, locations, query, weights, grad_logits, grad_value,
        grad_locations, grad_query);
  } else {
    const Launch launch = plan(sizes, 1);
    backward_kernel<T, C, 1><<<launch.blocks, launch.threads, 0, stream>>>(
        sizes, levels, launch.lanes, grad_output, value, locations, query, weights, grad_logits, grad_value,
        grad_locations, grad_query);
  }
}

#define DETRBENCH_INSTANTIATE(T, C)                                                                                   \
  template void key_aware_forward_cuda<T, C, Accumulate<T>>(const Sizes&, const DeviceLevels&, const T*, const C*,    \
                                                            const T*, T*, Accumulate<T>*, cudaStream_t);              \
  template void key_aware_backward_cuda<T, C, Accumulate<T>>(                                                         \
      const Sizes&, const DeviceLevels&, const T*, const T*, const C*, const T*, const Accumulate<T>*, Accumulate<T>*, \
      Accumulate<T>*, C*, T*, cudaStream_t);
DETRBENCH_FOR_CUDA_TYPES(DETRBENCH_INSTANTIATE)

}  // namespace detrbench
