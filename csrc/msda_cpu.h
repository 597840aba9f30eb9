// Multi-scale deformable attention on the CPU. All arrays are contiguous, but for the rows of the value.
#pragma once

#include "head_major.h"
#include "points.h"
#include "simd.h"
#include "sizes.h"

namespace detrbench {

// value (N, S, M, D), points of (N, Q, M, L, P) -> output (N, Q, M, D). Points is GivenPoints or OffsetPoints.
template <typename T, typename Points>
void msda_forward_cpu(const Sizes& sizes, const Level* levels, const Rows<const T>& value, const Points& points,
                      T* output);

// Overwrites grad_value (N, S, M, D) and the gradients that `points` has.
template <typename T, typename Points>
void msda_backward_cpu(const Sizes& sizes, const Level* levels, const T* grad_output, const Rows<const T>& value,
                       const Points& points, T* grad_value);

}  // namespace detrbench
