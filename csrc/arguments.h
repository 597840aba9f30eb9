// From tensors to sizes and levels, with the checks that keep a kernel inside its memory. The Python face gives the
// friendlier messages; these hold for callers of torch.ops.detrbench as well.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <limits>
#include <vector>

#include "sizes.h"

namespace detrbench {

// The type that sums are kept in.
inline at::ScalarType accumulate_type(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Whether the operations take numbers of this type.
inline bool is_known_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

// A tensor that goes with the value: on its device, and no wider.
inline void check_companion(const at::Tensor& tensor, const char* name, const at::Tensor& value) {
  TORCH_CHECK_VALUE(tensor.device() == value.device(), name, " is on ", tensor.device(), ", value on ", value.device());
  TORCH_CHECK_TYPE(is_known_type(tensor.scalar_type()), name, " must be float32, float64, float16 or bfloat16, got ",
                   tensor.scalar_type());
  TORCH_CHECK_TYPE(tensor.scalar_type() != at::kDouble || value.scalar_type() == at::kDouble,
                   name, " of float64 needs a float64 value");
}

// `name` is what the caller calls its locations, or offsets.
inline Sizes check_sizes(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                         const at::Tensor& locations, const char* name = "sampling_locations") {
  TORCH_CHECK_VALUE(value.dim() == 4, "value must be (N, S, M, D), got ", value.sizes());
  TORCH_CHECK_VALUE(locations.dim() == 6 && locations.size(5) == 2,
                    name, " must be (N, Q, M, L, P, 2), got ", locations.sizes());
  TORCH_CHECK_VALUE(locations.size(0) == value.size(0) && locations.size(2) == value.size(2), "value ", value.sizes(),
                    " and ", name, " ", locations.sizes(), " do not fit");
  const int64_t levels = locations.size(3);
  TORCH_CHECK_VALUE(levels > 0, "there must be at least one level");
  TORCH_CHECK_VALUE(shapes.dim() == 2 && shapes.size(0) == levels && shapes.size(1) == 2, "spatial_shapes must be (",
                    levels, ", 2), got ", shapes.sizes());
  TORCH_CHECK_VALUE(starts.dim() == 1 && starts.size(0) == levels, "level_start_index must be (", levels, ",), got ",
                    starts.sizes());
  TORCH_CHECK_TYPE(shapes.scalar_type() == at::kLong && starts.scalar_type() == at::kLong,
                   "spatial_shapes and level_start_index must be int64");
  check_companion(value, "value", value);
  check_companion(locations, name, value);
  TORCH_CHECK_VALUE(value.size(1) < std::numeric_limits<int32_t>::max(), "too many tokens: ", value.size(1));
  return {value.size(0), value.size(1), value.size(2), value.size(3), locations.size(1), levels, locations.size(4)};
}

inline void check_weights(const at::Tensor& weights, const at::Tensor& locations, const at::Tensor& value,
                          const char* name = "attention_weights") {
  TORCH_CHECK_VALUE(weights.sizes() == locations.sizes().slice(0, 5), name, " must be ", locations.sizes().slice(0, 5),
                    ", got ", weights.sizes());
  check_companion(weights, name, value);
}

inline void check_references(const Sizes& sizes, const at::Tensor& references, const at::Tensor& value) {
  TORCH_CHECK_VALUE(references.dim() == 4 && references.size(0) == sizes.images &&
                        references.size(1) == sizes.queries && references.size(2) == sizes.levels &&
                        (references.size(3) == 2 || references.size(3) == 4),
                    "reference_points must be (", sizes.images, ", ", sizes.queries, ", ", sizes.levels,
                    ", 2 or 4), got ", references.sizes());
  check_companion(references, "reference_points", value);
}

inline void check_query(const Sizes& sizes, const at::Tensor& query, const at::Tensor& value) {
  TORCH_CHECK_VALUE(query.dim() == 4 && query.size(0) == sizes.images && query.size(1) == sizes.queries &&
                        query.size(2) == sizes.heads && query.size(3) == sizes.depth,
                    "query must be (", sizes.images, ", ", sizes.queries, ", ", sizes.heads, ", ", sizes.depth,
                    "), got ", query.sizes());
  TORCH_CHECK_TYPE(query.scalar_type() == value.scalar_type() && query.device() == value.device(), "query must be ",
                   value.scalar_type(), " on ", value.device());
}

inline void check_gradient(const Sizes& sizes, const at::Tensor& grad_output, const at::Tensor& value) {
  TORCH_CHECK_VALUE(grad_output.dim() == 3 && grad_output.size(0) == sizes.images &&
                        grad_output.size(1) == sizes.queries && grad_output.size(2) == sizes.heads * sizes.depth,
                    "the output's gradient must be (", sizes.images, ", ", sizes.queries, ", ",
                    sizes.heads * sizes.depth, "), got ", grad_output.sizes());
  TORCH_CHECK_TYPE(grad_output.scalar_type() == value.scalar_type() && grad_output.device() == value.device(),
                   "the output's gradient must be ", value.scalar_type(), " on ", value.device());
}

// Both tensors must be on the CPU. The levels must fill the tokens one after the other without gap.
inline std::vector<Level> read_levels(const at::Tensor& shapes, const at::Tensor& starts, int64_t tokens) {
  std::vector<Level> levels;
  int64_t expected = 0;
  for (int64_t l = 0; l < starts.size(0); ++l) {
    const int64_t* size = shapes.const_data_ptr<int64_t>() + l * shapes.stride(0);
    const Level level{size[0], size[shapes.stride(1)], starts.const_data_ptr<int64_t>()[l * starts.stride(0)]};
    TORCH_CHECK_VALUE(level.height >= 0 && level.width >= 0, "level ", l, " of spatial_shapes is ", level.height, " x ",
                      level.width);
    TORCH_CHECK_VALUE(level.start == expected, "level_start_index[", l, "] is ", level.start,
                      ", but the levels before it hold ", expected, " tokens");
    // Divided, since the product of two wrong numbers may not fit.
    TORCH_CHECK_VALUE(level.width == 0 || level.height <= (tokens - expected) / level.width,
                      "spatial_shapes hold more than the ", tokens, " tokens of value");
    expected += level.height * level.width;
    levels.push_back(level);
  }
  TORCH_CHECK_VALUE(expected == tokens, "spatial_shapes hold ", expected, " tokens, value has ", tokens);
  return levels;
}

}  // namespace detrbench
