// Multi-scale deformable attention as it was first written for GPUs: one thread a channel, which works out every location
// for itself. Written anew, for one purpose: to be measured beside the kernels of csrc/ (`original.py`).
#include <cuda_runtime_api.h>

#include <cstdint>

namespace {

struct Problem {
  int64_t images, tokens, heads, depth, queries, levels, points;
  const int64_t* shapes;  // (L, 2) height, width
  const int64_t* starts;  // (L,)
};

// The four corners of a point, in one channel: `stride` elements lie between the tokens of `value`.
template <typename T>
struct Corners {
  T value[4];
  T share[4];
  int64_t at[4];  // -1 outside
  T right, down;

  __device__ Corners(const T* from, T x, T y, int64_t height, int64_t width, int64_t stride) {
    const int64_t left = static_cast<int64_t>(floor(x)), top = static_cast<int64_t>(floor(y));
    right = x - left, down = y - top;
    for (int c = 0; c < 4; ++c) {
      const int64_t column = left + c % 2, row = top + c / 2;
      const bool inside = column >= 0 && column < width && row >= 0 && row < height;
      at[c] = inside ? (row * width + column) * stride : -1;
      value[c] = inside ? from[at[c]] : T(0);
      share[c] = (c % 2 ? right : 1 - right) * (c / 2 ? down : 1 - down);
    }
  }

  __device__ T read() const {
    return share[0] * value[0] + share[1] * value[1] + share[2] * value[2] + share[3] * value[3];
  }
  __device__ T along_x() const { return (1 - down) * (value[1] - value[0]) + down * (value[3] - value[2]); }
  __device__ T along_y() const { return (1 - right) * (value[2] - value[0]) + right * (value[3] - value[1]); }
};

template <typename T>
__global__ void forward_kernel(const Problem sizes, const T* value, const T* locations, const T* weights, T* output) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= sizes.images * sizes.queries * sizes.heads * sizes.depth) return;
  const int64_t row = at / sizes.depth, head = row % sizes.heads, image = row / sizes.heads / sizes.queries;
  const int64_t stride = sizes.heads * sizes.depth;
  const T* const of_head = value + image * sizes.tokens * stride + head * sizes.depth + at % sizes.depth;
  int64_t point = row * sizes.levels * sizes.points;
  T sum = 0;
  for (int64_t l = 0; l < sizes.levels; ++l) {
    const int64_t height = sizes.shapes[2 * l], width = sizes.shapes[2 * l + 1];
    for (int64_t p = 0; p < sizes.points; ++p, ++point) {
      const T x = locations[2 * point] * width - T(0.5), y = locations[2 * point + 1] * height - T(0.5);
      if (!(x > -1 && y > -1 && x < width && y < height)) continue;
      sum += weights[point] * Corners<T>(of_head + sizes.starts[l] * stride, x, y, height, width, stride).read();
    }
  }
  output[at] = sum;
}

constexpr int kMostChannels = 1024;

// A block for each query and head, a thread for each channel; sums over channels are one thread's work.
template <typename T>
__global__ void backward_kernel(const Problem sizes, const T* grad_output, const T* value, const T* locations,
                                const T* weights, T* grad_value, T* grad_locations, T* grad_weights) {
  __shared__ T terms[3][kMostChannels];
  const int64_t row = blockIdx.x, head = row % sizes.heads, image = row / sizes.heads / sizes.queries;
  const int channel = static_cast<int>(threadIdx.x);
  const int64_t stride = sizes.heads * sizes.depth;
  const int64_t of_head = image * sizes.tokens * stride + head * sizes.depth + channel;
  const T gradient = grad_output[row * sizes.depth + channel];
  int64_t point = row * sizes.levels * sizes.points;
  for (int64_t l = 0; l < sizes.levels; ++l) {
    const int64_t height = sizes.shapes[2 * l], width = sizes.shapes[2 * l + 1];
    const int64_t first = of_head + sizes.starts[l] * stride;
    for (int64_t p = 0; p < sizes.points; ++p, ++point) {
      const T x = locations[2 * point] * width - T(0.5), y = locations[2 * point + 1] * height - T(0.5);
      for (int n = 0; n < 3; ++n) terms[n][channel] = 0;
      if (x > -1 && y > -1 && x < width && y < height) {
        const Corners<T> corners(value + first, x, y, height, width, stride);
        for (int c = 0; c < 4; ++c) {
          if (corners.at[c] < 0) continue;
          atomicAdd(grad_value + first + corners.at[c], corners.share[c] * weights[point] * gradient);
        }
        terms[0][channel] = gradient * corners.read();
        terms[1][channel] = gradient * weights[point] * width * corners.along_x();
        terms[2][channel] = gradient * weights[point] * height * corners.along_y();
      }
      __syncthreads();
      if (channel == 0) {
        T sums[3] = {};
        for (int64_t d = 0; d < sizes.depth; ++d) {
          for (int n = 0; n < 3; ++n) sums[n] += terms[n][d];
        }
        grad_weights[point] = sums[0];
        grad_locations[2 * point] = sums[1];
        grad_locations[2 * point + 1] = sums[2];
      }
      __syncthreads();
    }
  }
}

constexpr int kThreads = 256;

}  // namespace

// Arrays are contiguous, in float32, on the device; `sizes` are N, S, M, D, Q, L, P.
extern "C" __attribute__((visibility("default"))) void original_forward(
    const int64_t* sizes, const int64_t* shapes, const int64_t* starts, const float* value, const float* locations,
    const float* weights, float* output, cudaStream_t stream) {
  const Problem problem{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], shapes, starts};
  const int64_t blocks = (sizes[0] * sizes[4] * sizes[2] * sizes[3] + kThreads - 1) / kThreads;
  forward_kernel<float>
      <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(problem, value, locations, weights, output);
}

// Adds to grad_value, overwrites the other two. There are as many threads as channels: whole warps of them.
extern "C" __attribute__((visibility("default"))) void original_backward(
    const int64_t* sizes, const int64_t* shapes, const int64_t* starts, const float* grad_output, const float* value,
    const float* locations, const float* weights, float* grad_value, float* grad_locations, float* grad_weights,
    cudaStream_t stream) {
  const Problem problem{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], shapes, starts};
  const unsigned blocks = static_cast<unsigned>(sizes[0] * sizes[4] * sizes[2]);
  backward_kernel<float><<<blocks, static_cast<unsigned>(sizes[3]), 0, stream>>>(
      problem, grad_output, value, locations, weights, grad_value, grad_locations, grad_weights);
}
