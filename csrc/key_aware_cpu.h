// Key-aware deformable attention on the CPU. All arrays are contiguous, but for the rows of the value.
#pragma once

#include "head_major.h"
#include "simd.h"
#include "sizes.h"

namespace detrbench {

// value (N, S, M, D), locations (N, Q, M, L, P, 2), query (N, Q, M, D) -> output (N, Q, M, D), weights (N, Q, M, L, P).
template <typename T>
void key_aware_forward_cpu(const Sizes& sizes, const Level* levels, const Rows<const T>& value,
                           const Accumulate<T>* locations, const T* query, T* output, Accumulate<T>* weights);

// Overwrites the three gradients; `weights` are those of the forward. `grad_logits` (N, Q, M, L, P) is room to work in.
template <typename T>
void key_aware_backward_cpu(const Sizes& sizes, const Level* levels, const T* grad_output, const Rows<const T>& value,
                            const Accumulate<T>* locations, const T* query, const Accumulate<T>* weights,
                            Accumulate<T>* grad_logits, T* grad_value, Accumulate<T>* grad_locations, T* grad_query);

}  // namespace detrbench
