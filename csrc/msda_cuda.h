// Multi-scale deformable attention on CUDA devices. All arrays are contiguous and lie on the device.
#pragma once

#include <cuda_runtime_api.h>

#include "device_levels.h"

namespace detrbench {

// T: type of the values; C: type of locations and weights, T or the type that sums are kept in (A: float, or double for
// double). Instantiated for <float, float>, <double, double>, and half types with themselves and with float.

// value (N, S, M, D), locations (N, Q, M, L, P, 2), weights (N, Q, M, L, P) -> output (N, Q, M, D).
template <typename T, typename C>
void msda_forward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* locations,
                       const C* weights, T* output, cudaStream_t stream);

// The same around reference points, of type A: offsets (N, Q, M, L, P, 2) in cells around x, y, or in parts of half the
// side around cx, cy, w, h; the weights are the softmax of the logits (N, Q, M, L, P) over levels and points.
template <typename T, typename C, typename A>
void msda_from_offsets_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* offsets,
                            const C* logits, const A* references, int coordinates, T* output, cudaStream_t stream);

// Adds to grad_value, which holds sums of type A, in no fixed order, unless it is null; overwrites the other two.
template <typename T, typename C, typename A>
void msda_backward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                        const C* locations, const C* weights, A* grad_value, C* grad_locations, C* grad_weights,
                        cudaStream_t stream);

}  // namespace detrbench
