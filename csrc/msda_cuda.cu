#include "msda_cuda.h"

#include "merged.cuh"

namespace detrbench {
namespace {

template <typename T, typename C, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Sizes sizes, const DeviceLevels levels, const Launch launch, const T* __restrict__ value,
                   const C* __restrict__ locations, const C* __restrict__ weights, T* __restrict__ output) {
  using A = Accumulate<T>;
  using Task = detrbench::Task<T, C, Point<A>>;
  __shared__ typename Task::Tile tiles[kMaxGroups];
  __shared__ unsigned queries[kMaxGroups];
  check_levels(sizes, levels);
  const Task task(sizes, levels, launch, locations, tiles, queries);
  const auto weight = [&](int64_t at) { return widen(weights[at]); };
  task.template for_each_channel<V>([&](int channel, bool working, bool again) {
    const T* from = value + task.first_value + channel;
    A sum[V] = {};
    task.for_each_tile(weight, again, [&](int, int count) {
      if (!working) return;
#pragma unroll 2
      for (int p = 0; p < count; ++p) add_corners<V>(task.tile.points[p], A(1), from, sum);
    });
    if (working) store_pack<T, V>(output + task.first_channel() + channel, sum);
  });
}

// kAdds: whether gradients of values are added up here.
template <typename T, typename C, int V, bool kAdds>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Sizes sizes, const DeviceLevels levels, const Launch launch,
                    const T* __restrict__ grad_output, const T* __restrict__ value, const C* __restrict__ locations,
                    const C* __restrict__ weights, Accumulate<T>* __restrict__ grad_value,
                    C* __restrict__ grad_locations, C* __restrict__ grad_weights) {
  using A = Accumulate<T>;
  using Task = detrbench::Task<T, C, SlopedPoint<A>>;
  using Merged = std::conditional_t<kAdds, detrbench::Merged<A, Task, V, 1>, Nothing>;
  __shared__ typename Task::Tile tiles[kMaxGroups];
  __shared__ unsigned queries[kMaxGroups];
  __shared__ Merged merged;
  check_levels(sizes, levels);
  const Task task(sizes, levels, launch, locations, tiles, queries);
  const auto weight = [&](int64_t at) { return widen(weights[at]); };
  task.template for_each_channel<V>([&](int channel, bool working, bool again) {
    const T* from = value + task.first_value + channel;
    A gradient[V];
    load_row<V>(grad_output + task.first_channel() + channel, working, gradient);
    const auto visit = [&](int, const SlopedPoint<A>& point, A* terms) {
      A dots[4] = {};
      if (working) dot_corners<V>(point, from, gradient, dots);
      interpolate(point, dots, terms);
    };
    if constexpr (kAdds) merged.set_row(0, gradient);
    task.for_each_tile(weight, again, [&](int first, int count) {
      sum_points<3, A>(task, count, visit, [&](int p, const A* sums) {
        const int64_t at = task.first_point() + first + p;
        put(grad_weights + at, sums[0], again);
        put(grad_locations + 2 * at, sums[1] * task.tile.points[p].along_x, again);
        put(grad_locations + 2 * at + 1, sums[2] * task.tile.points[p].along_y, again);
      });
      if constexpr (kAdds) {
        merged.add_tile(task, count, grad_value + task.first_value + channel, channel < sizes.depth,
                        [](int, A* factor) { factor[0] = 1; });
      }
    });
  });
}

}  // namespace

template <typename T, typename C>
void msda_forward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* locations,
                       const C* weights, T* output, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(Accumulate<T>);
  if (packs<V>(sizes, {value, output})) {
    const Launch launch = plan(sizes, V);
    forward_kernel<T, C, V>
        <<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch, value, locations, weights, output);
  } else {
    const Launch launch = plan(sizes, 1);
    forward_kernel<T, C, 1>
        <<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch, value, locations, weights, output);
  }
}

template <int V, bool kAdds, typename T, typename C, typename A>
void launch_backward(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                     const C* locations, const C* weights, A* grad_value, C* grad_locations, C* grad_weights,
                     cudaStream_t stream) {
  const Launch launch = plan(sizes, V);
  backward_kernel<T, C, V, kAdds><<<launch.blocks, launch.threads, 0, stream>>>(
      sizes, levels, launch, grad_output, value, locations, weights, grad_value, grad_locations, grad_weights);
}

template <typename T, typename C, typename A>
void msda_backward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                        const C* locations, const C* weights, A* grad_value, C* grad_locations, C* grad_weights,
                        cudaStream_t stream) {
  constexpr int V = 16 / sizeof(A);
  const bool whole = packs<V>(sizes, {value, grad_output, grad_value}), adds = grad_value != nullptr;
  const auto adding = whole ? launch_backward<V, true, T, C, A> : launch_backward<1, true, T, C, A>;
  const auto not_adding = whole ? launch_backward<V, false, T, C, A> : launch_backward<1, false, T, C, A>;
  (adds ? adding : not_adding)(sizes, levels, grad_output, value, locations, weights, grad_value, grad_locations,
                               grad_weights, stream);
}

#define DETRBENCH_INSTANTIATE(T, C)                                                                                  \
  template void msda_forward_cuda<T, C>(const Sizes&, const DeviceLevels&, const T*, const C*, const C*, T*,         \
                                        cudaStream_t);                                                               \
  template void msda_backward_cuda<T, C, Accumulate<T>>(const Sizes&, const DeviceLevels&, const T*, const T*,       \
                                                        const C*, const C*, Accumulate<T>*, C*, C*, cudaStream_t);
DETRBENCH_FOR_CUDA_TYPES(DETRBENCH_INSTANTIATE)

}  // namespace detrbench
