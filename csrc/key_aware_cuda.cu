#include "key_aware_cuda.h"

#include "summing.cuh"

namespace detrbench {
namespace {

// Logits are products divided by the root of the number of channels.
template <typename A>
__device__ __forceinline__ A scale_of(const Sizes& sizes) {
  return 1 / sqrt(static_cast<A>(sizes.depth));
}

// products[p] = the product of x's row with the sample of point p, for all points of the task.
template <int V, typename Task, typename Samples, typename T, typename A>
__device__ __forceinline__ void multiply_samples(const Task& task, const Samples& samples, const T* value, const T* x,
                                                 A* products) {
  task.template for_each_channel<V>([&](int channel, bool working, bool again) {
    const T* from = value + task.first_value + channel;
    A row[V];
    load_row<V>(x + task.first_channel() + channel, working, row);
    const auto visit = [&](int, const auto& point, A* terms) {
      if (!working) return;
      A dots[4] = {};
      dot_corners<V>(point, from, row, dots);
#pragma unroll
      for (int c = 0; c < 4; ++c) terms[0] += point.share[c] * dots[c];
    };
    task.for_each_tile(samples, again, [&](int first, int count) {
      sum_points<1, A>(task, count, visit, [&](int p, const A* sums) {
        put(products + task.first_point() + first + p, sums[0], again);
      });
    });
  });
}

// Logits to weights, in place.
template <typename Task, typename A>
__device__ __forceinline__ void softmax(const Task& task, A* x) {
  const A scale = scale_of<A>(task.sizes);
  A largest = -INFINITY, sum = 0;
  task.share_points([&](int64_t p) { largest = x[p] > largest ? x[p] : largest; });
  largest = task.across(largest, [](A a, A b) { return b > a ? b : a; });
  task.share_points([&](int64_t p) {
    x[p] = exp((x[p] - largest) * scale);
    sum += x[p];
  });
  sum = task.across(sum, [](A a, A b) { return a + b; });
  task.share_points([&](int64_t p) { x[p] /= sum; });
  __syncwarp();
}

template <typename T, typename C, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Sizes sizes, const DeviceLevels levels, const Launch launch, const T* __restrict__ value,
                   const C* __restrict__ locations, const T* __restrict__ query, T* __restrict__ output,
                   Accumulate<T>* __restrict__ weights) {
  using A = Accumulate<T>;
  using Task = detrbench::Task<T, Point<A>>;
  __shared__ typename Task::Tile tiles[kMaxGroups];
  __shared__ unsigned queries[kMaxGroups];
  check_levels(sizes, levels);
  const Task task(sizes, levels, launch, tiles, queries);
  const Given<A, C> samples{locations, nullptr};
  multiply_samples<V>(task, samples, value, query, weights);
  softmax(task, weights);
  task.template for_each_channel<V>([&](int channel, bool working, bool) {
    const T* from = value + task.first_value + channel;
    A sum[V] = {};
    task.for_each_tile(samples, true, [&](int first, int count) {
      if (!working) return;
      for (int p = 0; p < count; ++p) {
        const A weight = weights[task.first_point() + first + p];
        add_corners<V>(task.tile.points[p], weight, from, sum);
      }
    });
    if (working) store_pack<T, V>(output + task.first_channel() + channel, sum);
  });
}

// Products of the output's gradient with the samples to gradients of the unscaled logits, in place: with weights w,
// output o and its gradient g, the gradient of logit p is w_p (g . sample_p - g . o).
template <typename Task, typename A>
__device__ __forceinline__ void softmax_backward(const Task& task, const A* weights, A* x) {
  const A scale = scale_of<A>(task.sizes);
  A total = 0;
  task.share_points([&](int64_t p) { total += weights[p] * x[p]; });
  total = task.across(total, [](A a, A b) { return a + b; });
  task.share_points([&](int64_t p) { x[p] = weights[p] * (x[p] - total) * scale; });
  __syncwarp();
}

// Summing: how gradients of values are added up.
template <typename T, typename C, int V, template <typename, typename, int, int> class Summing>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Sizes sizes, const DeviceLevels levels, const Launch launch, const T* __restrict__ grad_output,
                    const T* __restrict__ value, const C* __restrict__ locations, const T* __restrict__ query,
                    const Accumulate<T>* __restrict__ weights, Accumulate<T>* __restrict__ grad_logits,
                    Accumulate<T>* __restrict__ grad_value, C* __restrict__ grad_locations,
                    T* __restrict__ grad_query) {
  using A = Accumulate<T>;
  using Task = detrbench::Task<T, SlopedPoint<A>>;
  using Sums = Summing<A, Task, V, 2>;
  __shared__ typename Task::Tile tiles[kMaxGroups];
  __shared__ unsigned queries[kMaxGroups];
  __shared__ typename Sums::Room room;
  check_levels(sizes, levels);
  Sums of_values(room);
  const Task task(sizes, levels, launch, tiles, queries);
  const Given<A, C> samples{locations, nullptr};
  multiply_samples<V>(task, samples, value, grad_output, grad_logits);
  softmax_backward(task, weights, grad_logits);
  task.template for_each_channel<V>([&](int channel, bool working, bool again) {
    const T* from = value + task.first_value + channel;
    A gradient[V], asked[V], sum[V] = {};
    load_row<V>(grad_output + task.first_channel() + channel, working, gradient);
    load_row<V>(query + task.first_channel() + channel, working, asked);
    of_values.set_row(0, gradient);
    of_values.set_row(1, asked);
    // The tile is prepared already where it holds all points.
    task.for_each_tile(samples, true, [&](int first, int count) {
      const A* const weight_of = weights + task.first_point() + first;
      const A* const grad_logit_of = grad_logits + task.first_point() + first;
      const auto visit = [&](int p, const SlopedPoint<A>& point, A* terms) {
        A dots[4] = {};
        if (working) {
          // The sample's gradient: through the output, and through the key that it also is.
          const A weight = weight_of[p], grad_logit = grad_logit_of[p];
          A both[V];
#pragma unroll
          for (int v = 0; v < V; ++v) both[v] = weight * gradient[v] + grad_logit * asked[v];
          for_each_corner<V>(point, from, [&](int c, const Pack<T, V>& corner) {
            dots[c] = dot(corner, both);
            add(corner, grad_logit * point.share[c], sum);
          });
        }
        interpolate(point, dots, terms);
      };
      sum_points<3, A>(task, count, visit, [&](int p, const A* sums) {
        C* const at = grad_locations + 2 * (task.first_point() + first + p);
        put(at, sums[1] * task.tile.points[p].along_x, again);
        put(at + 1, sums[2] * task.tile.points[p].along_y, again);
      });
      of_values.add_tile(task, count, grad_value, task.first_value + channel, channel < sizes.depth,
                         [&](int p, A* factors) {
                           factors[0] = weight_of[p];
                           factors[1] = grad_logit_of[p];
                         });
    });
    if (working) store_pack<T, V>(grad_query + task.first_channel() + channel, sum);
  });
}

}  // namespace

template <typename T, typename C, typename A>
void key_aware_forward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* locations,
                            const T* query, T* output, A* weights, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(A);
  if (packs<V>(sizes, {value, query, output})) {
    const Launch launch = plan(sizes, V);
    forward_kernel<T, C, V><<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch, value, locations,
                                                                          query, output, weights);
  } else {
    const Launch launch = plan(sizes, 1);
    forward_kernel<T, C, 1><<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch, value, locations,
                                                                          query, output, weights);
  }
}

template <template <typename, typename, int, int> class Summing, typename T, typename C, typename A>
void launch_backward(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                     const C* locations, const T* query, const A* weights, A* grad_logits, A* grad_value,
                     C* grad_locations, T* grad_query, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(A);
  if (packs<V>(sizes, {value, query, grad_output, grad_value, grad_query})) {
    const Launch launch = plan(sizes, V);
    backward_kernel<T, C, V, Summing><<<launch.blocks, launch.threads, 0, stream>>>(
        sizes, levels, launch, grad_output, value, locations, query, weights, grad_logits, grad_value, grad_locations,
        grad_query);
  } else {
    const Launch launch = plan(sizes, 1);
    backward_kernel<T, C, 1, Summing><<<launch.blocks, launch.threads, 0, stream>>>(
        sizes, levels, launch, grad_output, value, locations, query, weights, grad_logits, grad_value, grad_locations,
        grad_query);
  }
}

template <typename T, typename C, typename A>
void key_aware_backward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                             const C* locations, const T* query, const A* weights, A* grad_logits, A* grad_value,
                             C* grad_locations, T* grad_query, cudaStream_t stream) {
  const auto launch = grad_value == nullptr  ? launch_backward<Unsummed, T, C, A>
                      : merging_pays(sizes) ? launch_backward<Merged, T, C, A>
                                             : launch_backward<Each, T, C, A>;
  launch(sizes, levels, grad_output, value, locations, query, weights, grad_logits, grad_value, grad_locations,
         grad_query, stream);
}

#define DETRBENCH_INSTANTIATE(T, C)                                                                                   \
  template void key_aware_forward_cuda<T, C, Accumulate<T>>(const Sizes&, const DeviceLevels&, const T*, const C*,    \
                                                            const T*, T*, Accumulate<T>*, cudaStream_t);              \
  template void key_aware_backward_cuda<T, C, Accumulate<T>>(                                                         \
      const Sizes&, const DeviceLevels&, const T*, const T*, const C*, const T*, const Accumulate<T>*, Accumulate<T>*, \
      Accumulate<T>*, C*, T*, cudaStream_t);
DETRBENCH_FOR_CUDA_TYPES(DETRBENCH_INSTANTIATE)

}  // namespace detrbench
