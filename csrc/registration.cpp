// The CPU kernels as PyTorch calls them. Schema, gradients and shapes are declared in models/ops/registration.py.
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <torch/library.h>

#include <tuple>

#include "arguments.h"
#include "key_aware_cpu.h"
#include "msda_cpu.h"

namespace detrbench {
namespace {

// The value, copied only where the channels of a row lie apart.
at::Tensor whole_rows(const at::Tensor& value) {
  return value.size(3) <= 1 || value.stride(3) == 1 ? value : value.contiguous();
}

template <typename T>
Rows<const T> rows_of(const at::Tensor& value) {
  return {value.const_data_ptr<T>(), value.stride(1), value.stride(2), value.stride(0)};
}

// In the type that sums are kept in, element after element.
at::Tensor plain(const at::Tensor& tensor, at::ScalarType type) { return tensor.to(type).contiguous(); }

at::Tensor output_of(const Sizes& sizes, const at::Tensor& value) {
  return at::empty({sizes.images, sizes.queries, sizes.heads * sizes.depth}, value.options());
}

at::Tensor msda_cpu(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                    const at::Tensor& locations, const at::Tensor& weights) {
  const Sizes sizes = check_sizes(value, shapes, starts, locations);
  check_weights(weights, locations, value);
  const std::vector<Level> levels = read_levels(shapes, starts, sizes.tokens);
  const at::ScalarType accumulate = accumulate_type(value);
  const at::Tensor value_ = whole_rows(value);
  const at::Tensor locations_ = plain(locations, accumulate), weights_ = plain(weights, accumulate);
  at::Tensor output = output_of(sizes, value);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "msda", [&] {
    using A = Accumulate<scalar_t>;
    const GivenPoints<A> points{locations_.const_data_ptr<A>(), weights_.const_data_ptr<A>()};
    msda_forward_cpu<scalar_t>(sizes, levels.data(), rows_of<scalar_t>(value_), points,
                               output.mutable_data_ptr<scalar_t>());
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
  const at::Tensor grad_output_ = grad_output.contiguous(), value_ = whole_rows(value);
  const at::Tensor locations_ = plain(locations, accumulate), weights_ = plain(weights, accumulate);
  at::Tensor grad_value = at::empty(value.sizes(), value.options());
  at::Tensor grad_locations = at::empty_like(locations_), grad_weights = at::empty_like(weights_);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "msda_backward", [&] {
    using A = Accumulate<scalar_t>;
    const GivenPoints<A> points{locations_.const_data_ptr<A>(), weights_.const_data_ptr<A>(),
                                grad_locations.mutable_data_ptr<A>(), grad_weights.mutable_data_ptr<A>()};
    msda_backward_cpu<scalar_t>(sizes, levels.data(), grad_output_.const_data_ptr<scalar_t>(),
                                rows_of<scalar_t>(value_), points, grad_value.mutable_data_ptr<scalar_t>());
  });
  return {grad_value, grad_locations.to(locations.scalar_type()), grad_weights.to(weights.scalar_type())};
}

Sizes check_offsets(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                    const at::Tensor& offsets, const at::Tensor& logits, const at::Tensor& references) {
  const Sizes sizes = check_sizes(value, shapes, starts, offsets, "offsets");
  check_weights(logits, offsets, value, "logits");
  check_references(sizes, references, value);
  return sizes;
}

at::Tensor msda_from_offsets_cpu(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                                 const at::Tensor& offsets, const at::Tensor& logits, const at::Tensor& references) {
  const Sizes sizes = check_offsets(value, shapes, starts, offsets, logits, references);
  const std::vector<Level> levels = read_levels(shapes, starts, sizes.tokens);
  const at::ScalarType accumulate = accumulate_type(value);
  const at::Tensor value_ = whole_rows(value), references_ = plain(references, accumulate);
  const at::Tensor offsets_ = plain(offsets, accumulate), logits_ = plain(logits, accumulate);
  at::Tensor output = output_of(sizes, value);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "msda_from_offsets", [&] {
    using A = Accumulate<scalar_t>;
    const OffsetPoints<A> points{offsets_.const_data_ptr<A>(), logits_.const_data_ptr<A>(),
                                 references_.const_data_ptr<A>(), references.size(3)};
    msda_forward_cpu<scalar_t>(sizes, levels.data(), rows_of<scalar_t>(value_), points,
                               output.mutable_data_ptr<scalar_t>());
  });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> msda_from_offsets_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
    const at::Tensor& offsets, const at::Tensor& logits, const at::Tensor& references) {
  const Sizes sizes = check_offsets(value, shapes, starts, offsets, logits, references);
  const std::vector<Level> levels = read_levels(shapes, starts, sizes.tokens);
  check_gradient(sizes, grad_output, value);
  const at::ScalarType accumulate = accumulate_type(value);
  const at::Tensor grad_output_ = grad_output.contiguous(), value_ = whole_rows(value);
  const at::Tensor offsets_ = plain(offsets, accumulate), logits_ = plain(logits, accumulate);
  const at::Tensor references_ = plain(references, accumulate);
  at::Tensor grad_value = at::empty(value.sizes(), value.options());
  at::Tensor grad_offsets = at::empty_like(offsets_), grad_logits = at::empty_like(logits_);
  at::Tensor of_heads = at::empty({sizes.images, sizes.queries, sizes.heads, sizes.levels, references.size(3)},
                                  references_.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "msda_from_offsets_backward", [&] {
    using A = Accumulate<scalar_t>;
    const OffsetPoints<A> points{offsets_.const_data_ptr<A>(),      logits_.const_data_ptr<A>(),
                                 references_.const_data_ptr<A>(),   references.size(3),
                                 grad_offsets.mutable_data_ptr<A>(), grad_logits.mutable_data_ptr<A>(),
                                 of_heads.mutable_data_ptr<A>()};
    msda_backward_cpu<scalar_t>(sizes, levels.data(), grad_output_.const_data_ptr<scalar_t>(),
                                rows_of<scalar_t>(value_), points, grad_value.mutable_data_ptr<scalar_t>());
  });
  return {grad_value, grad_offsets.to(offsets.scalar_type()), grad_logits.to(logits.scalar_type()),
          of_heads.sum(2).to(references.scalar_type())};
}

std::tuple<at::Tensor, at::Tensor> key_aware_cpu(const at::Tensor& value, const at::Tensor& shapes,
                                                 const at::Tensor& starts, const at::Tensor& locations,
                                                 const at::Tensor& query) {
  const Sizes sizes = check_sizes(value, shapes, starts, locations);
  check_query(sizes, query, value);
  const std::vector<Level> levels = read_levels(shapes, starts, sizes.tokens);
  const at::ScalarType accumulate = accumulate_type(value);
  const at::Tensor value_ = whole_rows(value), query_ = query.contiguous();
  const at::Tensor locations_ = plain(locations, accumulate);
  at::Tensor output = output_of(sizes, value);
  at::Tensor weights = at::empty(locations.sizes().slice(0, 5), value.options().dtype(accumulate));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "key_aware_attention", [&] {
    using A = Accumulate<scalar_t>;
    key_aware_forward_cpu<scalar_t>(sizes, levels.data(), rows_of<scalar_t>(value_),
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
  const at::Tensor grad_output_ = grad_output.contiguous(), value_ = whole_rows(value), query_ = query.contiguous();
  const at::Tensor locations_ = plain(locations, accumulate), weights_ = plain(weights, accumulate);
  at::Tensor grad_value = at::empty(value.sizes(), value.options()), grad_query = at::empty_like(query_);
  at::Tensor grad_locations = at::empty_like(locations_), grad_logits = at::empty_like(weights_);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "key_aware_attention_backward", [&] {
    using A = Accumulate<scalar_t>;
    key_aware_backward_cpu<scalar_t>(
        sizes, levels.data(), grad_output_.const_data_ptr<scalar_t>(), rows_of<scalar_t>(value_),
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
  library.impl("msda_from_offsets", &msda_from_offsets_cpu);
  library.impl("msda_from_offsets_backward", &msda_from_offsets_backward_cpu);
  library.impl("key_aware_attention", &key_aware_cpu);
  library.impl("key_aware_attention_backward", &key_aware_backward_cpu_);
}

}  // namespace detrbench
