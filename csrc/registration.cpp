// The CPU kernels as PyTorch calls them. Schema, gradients and shapes are declared in models/ops/registration.py.
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <tuple>

#include "arguments.h"
#include "key_aware_cpu.h"
#include "msda_cpu.h"

namespace detrbench {
namespace {

at::Tensor msda_cpu(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                    const at::Tensor& locations, const at::Tensor& weights) {
  const Sizes sizes = check_sizes(value, shapes, starts, locations);
  check_weights(weights, locations, value);
  const std::vector<Level> levels = read_levels(shapes, starts, sizes.tokens);
  const at::ScalarType accumulate = accumulate_type(value);
  const at::Tensor value_ = value.contiguous();
  const at::Tensor locations_ = locations.to(accumulate).contiguous();
  const at::Tensor weights_ = weights.to(accumulate).contiguous();
  at::Tensor output = at::empty({sizes.images, sizes.queries, sizes.heads * sizes.depth}, value.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "msda", [&] {
    using A = Accumulate<scalar_t>;
    msda_forward_cpu<scalar_t>(sizes, levels.data(), value_.const_data_ptr<scalar_t>(), locations_.const_data_ptr<A>(),
                               weights_.const_data_ptr<A>(), output.mutable_data_ptr<scalar_t>());
  });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> msda_backward_cpu_(const at::Tensor& grad_output, const at::Tensor& value,
                                                                  const at::Tensor& shapes, const at::Tensor& starts,
                                                                  const at::Tensor& locations,
                                                                  const at::Tensor& weights) {
  const Sizes sizes = check_sizes(value, shapes, starts, locations);
  check_weights(weights, locations, value);
  const std::vector<Level> levels = read_levels(shapes, starts, sizes.tokens);
  check_gradient(sizes, grad_output, value);
  const at::ScalarType accumulate = accumulate_type(value);
  const at::Tensor grad_output_ = grad_output.contiguous(), value_ = value.contiguous();
  const at::Tensor locations_ = locations.to(accumulate).contiguous();
  const at::Tensor weights_ = weights.to(accumulate).contiguous();
  at::Tensor grad_value = at::empty_like(value_);
  at::Tensor grad_locations = at::empty_like(locations_), grad_weights = at::empty_like(weights_);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "msda_backward", [&] {
    using A = Accumulate<scalar_t>;
    msda_backward_cpu<scalar_t>(sizes, levels.data(), grad_output_.const_data_ptr<scalar_t>(),
                                value_.const_data_ptr<scalar_t>(), locations_.const_data_ptr<A>(),
                                weights_.const_data_ptr<A>(), grad_value.mutable_data_ptr<scalar_t>(),
                                grad_locations.mutable_data_ptr<A>(), grad_weights.mutable_data_ptr<A>());
  });
  return {grad_value, grad_locations.to(locations.scalar_type()), grad_weights.to(weights.scalar_type())};
}

std::tuple<at::Tensor, at::Tensor> key_aware_cpu(const at::Tensor& value, const at::Tensor& shapes,
                                                 const at::Tensor& starts, const at::Tensor& locations,
                                                 const at::Tensor& query) {
  const Sizes sizes = check_sizes(value, shapes, starts, locations);
  check_query(sizes, query, value);
  const std::vector<Level> levels = read_levels(shapes, starts, sizes.tokens);
  const at::ScalarType accumulate = accumulate_type(value);
  const at::Tensor value_ = value.contiguous(), query_ = query.contiguous();
  const at::Tensor locations_ = locations.to(accumulate).contiguous();
  at::Tensor output = at::empty({sizes.images, sizes.queries, sizes.heads * sizes.depth}, value.options());
  at::Tensor weights = at::empty(locations.sizes().slice(0, 5), value.options().dtype(accumulate));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "key_aware_attention", [&] {
    using A = Accumulate<scalar_t>;
    key_aware_forward_cpu<scalar_t>(sizes, levels.data(), value_.const_data_ptr<scalar_t>(),
                                    locations_.const_data_ptr<A>(), query_.const_data_ptr<scalar_t>(),
                                    output.mutable_data_ptr<scalar_t>(), weights.mutable_data_ptr<A>());
  });
  return {output, weights};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> key_aware_backward_cpu_(const at::Tensor& grad_output,
                                                                       const at::Tensor& value,
                                                                       const at::Tensor& shapes,
                                                                       const at::Tensor& starts,
                                                                       const at::Tensor& locations,
                                                                       const at::Tensor& query,
                                                                       const at::Tensor& weights) {
  const Sizes sizes = check_sizes(value, shapes, starts, locations);
  check_query(sizes, query, value);
  check_weights(weights, locations, value);
  check_gradient(sizes, grad_output, value);
  const std::vector<Level> levels = read_levels(shapes, starts, sizes.tokens);
  const at::ScalarType accumulate = accumulate_type(value);
  const at::Tensor grad_output_ = grad_output.contiguous(), value_ = value.contiguous(), query_ = query.contiguous();
  const at::Tensor locations_ = locations.to(accumulate).contiguous();
  const at::Tensor weights_ = weights.to(accumulate).contiguous();
  at::Tensor grad_value = at::empty_like(value_), grad_query = at::empty_like(query_);
  at::Tensor grad_locations = at::empty_like(locations_), grad_logits = at::empty_like(weights_);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "key_aware_attention_backward", [&] {
    using A = Accumulate<scalar_t>;
    key_aware_backward_cpu<scalar_t>(
        sizes, levels.data(), grad_output_.const_data_ptr<scalar_t>(), value_.const_data_ptr<scalar_t>(),
        locations_.const_data_ptr<A>(), query_.const_data_ptr<scalar_t>(), weights_.const_data_ptr<A>(),
        grad_logits.mutable_data_ptr<A>(), grad_value.mutable_data_ptr<scalar_t>(),
        grad_locations.mutable_data_ptr<A>(), grad_query.mutable_data_ptr<scalar_t>());
  });
  return {grad_value, grad_locations.to(locations.scalar_type()), grad_query};
}

}  // namespace

TORCH_LIBRARY_IMPL(detrbench, CPU, library) {
  library.impl("msda", &msda_cpu);
  library.impl("msda_backward", &msda_backward_cpu_);
  library.impl("key_aware_attention", &key_aware_cpu);
  library.impl("key_aware_attention_backward", &key_aware_backward_cpu_);
}

}  // namespace detrbench
