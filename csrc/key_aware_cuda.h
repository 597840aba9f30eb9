// Key-aware deformable attention on CUDA devices. All arrays are contiguous and lie on the device.
#pragma once

#include <cuda_runtime_api.h>

#include "device_levels.h"

namespace detrbench {

// T: type of the values; A: type that sums are kept in (float, or double for double); C: type of the locations, T or A.
// Instantiated for <float, float>, <double, double>, and half types with themselves and with float.

// value (N, S, M, D), locations (N, Q, M, L, P, 2), query (N, Q, M, D) -> output (N, Q, M, D), weights (N, Q, M, L, P).
template <typename T, typename C, typename A>
void key_aware_forward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* value, const C* locations,
                            const T* query, T* output, A* weights, cudaStream_t stream);

// Adds to grad_value, which holds sums of type A, in no fixed order, unless it is null; overwrites the other two.
// `weights` are those of the forward. Leaves the gradients of unscaled logits in `grad_logits` (N, Q, M, L, P).
template <typename T, typename C, typename A>
void key_aware_backward_cuda(const Sizes& sizes, const DeviceLevels& levels, const T* grad_output, const T* value,
                             const C* locations, const T* query, const A* weights, A* grad_logits, A* grad_value,
                             C* grad_locations, T* grad_query, cudaStream_t stream);

}  // namespace detrbench
