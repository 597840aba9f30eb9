// Multi-scale deformable attention on the CPU. All arrays are contiguous.
#pragma once

#include "simd.h"
#include "sizes.h"

namespace detrbench {

// value (N, S, M, D), locations (N, Q, M, L, P, 2), weights (N, Q, M, L, P) -> output (N, Q, M, D).
template <typename T>
void msda_forward_cpu(const Sizes& sizes, const Level* levels, const T* value, const Accumulate<T>* locations,
                      const Accumulate<T>* weights, T* output);

// Overwrites the three gradients.
template <typename T>
void msda_backward_cpu(const Sizes& sizes, const Level* levels, const T* grad_output, const T* value,
                       const Accumulate<T>* locations, const Accumulate<T>* weights, T* grad_value,
                       Accumulate<T>* grad_locations, Accumulate<T>* grad_weights);

}  // namespace detrbench
