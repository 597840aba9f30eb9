#include "msda_cuda.h"

#include "summing.cuh"

namespace detrbench {
namespace {

template <typename T, typename Samples, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Sizes sizes, const DeviceLevels levels, const Launch launch, const T* __restrict__ value,
                   Samples samples, T* __restrict__ output) {
  using A = Accumulate<T>;
  using Task = detrbench::Task<T, Point<A>>;
  __shared__ typename Task::Tile tiles[kMaxGroups];
  __shared__ unsigned queries[kMaxGroups];
  check_levels(sizes, levels);
  const Task task(sizes, levels, launch, tiles, queries);
  samples.begin(task);
  task.template for_each_channel<V>([&](int channel, bool working, bool again) {
    const T* from = value + task.first_value + channel;
    A sum[V] = {};
    task.for_each_tile(samples, again, [&](int, int count) {
      if (!working) return;
#pragma unroll 4
      for (int p = 0; p < count; ++p) add_corners<V>(task.tile.points[p], A(1), from, sum);
    });
    if (working) store_pack<T, V>(output + task.first_channel() + channel, sum);
  });
}

// Summing: how gradients of values are added up.
template <typename T, typename C, int V, template <typename, typename, int, int> class Summing>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Sizes sizes, const DeviceLevels levels, const Launch launch,
                    const T* __restrict__ grad_output, const T* __restrict__ value, const C* __restrict__ locations,
                    const C* __restrict__ weights, Accumulate<T>* __restrict__ grad_value,
                    C* __restrict__ grad_locations, C* __restrict__ grad_weights) {
  using A = Accumulate<T>;
  using Task = detrbench::Task<T, SlopedPoint<A>>;
  using Sums = Summing<A, Task, V, 1>;
  __shared__ typename Task::Tile tiles[kMaxGroups];
  __shared__ unsigned queries[kMaxGroups];
  __shared__ typename Sums::Room room;
  check_levels(sizes, levels);
  Sums of_values(room);
  const Task task(sizes, levels, launch, tiles, queries);
  const Given<A, C> samples{locations, weights};
  task.template for_each_channel<V>([&](int channel, bool working, bool again) {
    const T* from = value + task.first_value + channel;
    A gradient[V];
    load_row<V>(grad_output + task.first_channel() + channel, working, gradient);
    const auto visit = [&](int, const SlopedPoint<A>& point, A* terms) {
      A dots[4] = {};
      if (working) dot_corners<V>(point, from, gradient, dots);
      interpolate(point, dots, terms);
    };
    of_values.set_row(0, gradient);
    task.for_each_tile(samples, again, [&](int first, int count) {
      sum_points<3, A>(task, count, visit, [&](int p, const A* sums) {
        const int64_t at = task.first_point() + first + p;
        put(grad_weights + at, sums[0], again);
        put(grad_locations + 2 * at, sums[1] * task.tile.points[p].along_x, again);
        put(grad_locations + 2 * at + 1, sums[2] * task.tile.points[p].along_y, again);
      });
      of_values.add_tile(task, count, grad_value, task.first_value + channel, channel < sizes.depth,
                         [](int, A* factor) { factor[0] = 1; });
    });
  });
}

}  // namespace

template <typename T, typename Samples>
void launch_forward(const Sizes& sizes, const DeviceLevels& levels, const T* value, const Samples& samples, T* output,
                    cudaStream_t stream) {
  constexpr int V = 16 / sizeof(Accumulate<T>);
  if (packs<V>(sizes, {value, output})) {
    const Launch launch = plan(sizes, V);
    forward_kernel<T, Samples, V>
        <<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch, value, samples, output);
  } else {
    const Launch launch = plan(sizes, 1);
    forward_kernel<T, Samples, 1>
        <<<launch.blocks, launch.threads, 0, stream>>>(sizes, levels, launch, value, samples, output);
  }
}

template <typename T, typename C>
void msda_forward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* locations,
                       const C* weights, T* output, cudaStream_t stream) {
  launch_forward(sizes, levels, value, Given<Accumulate<T>, C>{locations, weights}, output, stream);
}

template <typename T, typename C, typename A>
void msda_from_offsets_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* offsets,
                            const C* logits, const A* references, int coordinates, T* output, cudaStream_t stream) {
  launch_forward(sizes, levels, value, FromOffsets<A, C>{offsets, logits, references, coordinates}, output, stream);
}

template <template <typename, typename, int, int> class Summing, typename T, typename C, typename A>
void launch_backward(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                     const C* locations, const C* weights, A* grad_value, C* grad_locations, C* grad_weights,
                     cudaStream_t stream) {
  constexpr int V = 16 / sizeof(A);
  if (packs<V>(sizes, {value, grad_output, grad_value})) {
    const Launch launch = plan(sizes, V);
    backward_kernel<T, C, V, Summing><<<launch.blocks, launch.threads, 0, stream>>>(
        sizes, levels, launch, grad_output, value, locations, weights, grad_value, grad_locations, grad_weights);
  } else {
    const Launch launch = plan(sizes, 1);
    backward_kernel<T, C, 1, Summing><<<launch.blocks, launch.threads, 0, stream>>>(
        sizes, levels, launch, grad_output, value, locations, weights, grad_value, grad_locations, grad_weights);
  }
}

template <typename T, typename C, typename A>
void msda_backward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                        const C* locations, const C* weights, A* grad_value, C* grad_locations, C* grad_weights,
                        cudaStream_t stream) {
  const auto launch = grad_value == nullptr  ? launch_backward<Unsummed, T, C, A>
                      : merging_pays(sizes) ? launch_backward<Merged, T, C, A>
                                             : launch_backward<Each, T, C, A>;
  launch(sizes, levels, grad_output, value, locations, weights, grad_value, grad_locations, grad_weights, stream);
}

#define DETRBENCH_INSTANTIATE(T, C)                                                                                  \
  template void msda_forward_cuda<T, C>(const Sizes&, const DeviceLevels&, const T*, const C*, const C*, T*,         \
                                        cudaStream_t);                                                               \
  template void msda_from_offsets_cuda<T, C, Accumulate<T>>(const Sizes&, const DeviceLevels&, const T*, const C*,   \
                                                            const C*, const Accumulate<T>*, int, T*, cudaStream_t);  \
  template void msda_backward_cuda<T, C, Accumulate<T>>(const Sizes&, const DeviceLevels&, const T*, const T*,       \
                                                        const C*, const C*, Accumulate<T>*, C*, C*, cudaStream_t);
DETRBENCH_FOR_CUDA_TYPES(DETRBENCH_INSTANTIATE)

}  // namespace detrbench
