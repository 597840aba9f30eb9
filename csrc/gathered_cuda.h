// Gradients of values without atomic additions: the corners that points read are listed, sorted by token (by the caller),
// and those of a token added up by one thread, in the order of the points. Arrays are contiguous, on the device.
#pragma once

#include <cuda_runtime_api.h>

#include "device_levels.h"

namespace detrbench {

// For each point of locations (N, Q, M, L, P, 2), four corners: the number of its token among those of all heads,
// (N, M, S), or N * M * S where it lies outside; and its bilinear weight times the point's, if there are `weights`.
template <typename C, typename A>
void list_corners_cuda(const Sizes& sizes, const DeviceLevels& levels, const C* locations, const C* weights,
                       int64_t* tokens, A* shares, cudaStream_t stream);

// What key-aware attention adds to the gradient of a sample, by point: weights, and gradients of logits for the query.
template <typename T, typename A>
struct KeyTerms {
  const T* query;
  const A* weights;
  const A* grad_logits;
};

// Overwrites grad_value (N, S, M, D). Corners of token t are `order`[i], from i = `bounds`[t] to `bounds`[t + 1]. Without
// a query in `keys` the gradient of every sample is that of the output.
template <typename T, typename A>
void gather_gradients_cuda(const Sizes& sizes, const int64_t* bounds, const int64_t* order, const A* shares,
                           const T* grad_output, const KeyTerms<T, A>& keys, T* grad_value, cudaStream_t stream);

}  // namespace detrbench
