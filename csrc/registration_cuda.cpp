// The CUDA kernels as PyTorch calls them. Schema, gradients and shapes are declared in models/ops/registration.py.
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <type_traits>

#include "arguments.h"
#include "gathered_cuda.h"
#include "key_aware_cuda.h"
#include "msda_cuda.h"

namespace detrbench {
namespace {

// CUDA's own name for a type of PyTorch's.
template <typename T>
struct Native {
  using type = T;
};
template <>
struct Native<c10::Half> {
  using type = __half;
};
template <>
struct Native<c10::BFloat16> {
  using type = __nv_bfloat16;
};

// The tensors of a call as the kernels take them: contiguous, on one device. `narrow` leaves
// locations in the value's type; otherwise they take that of the sums.
struct Call {
  Sizes sizes;
  DeviceLevels levels{};
  at::Tensor value, locations;
  at::Tensor shapes, starts;  // keep alive what `levels` points to
  at::ScalarType accumulate;

  Call(const at::Tensor& value_, const at::Tensor& shapes_, const at::Tensor& starts_, const at::Tensor& locations_,
       bool narrow, const char* name = "sampling_locations")
      : sizes(check_sizes(value_, shapes_, starts_, locations_, name)),
        value(value_.contiguous()),
        locations(locations_.to(narrow ? value_.scalar_type() : accumulate_type(value_)).contiguous()),
        accumulate(accumulate_type(value_)) {
    // x and y are read as one: a view may start between them.
    if (reinterpret_cast<uintptr_t>(locations.const_data_ptr()) % (2 * locations.element_size()) != 0) {
      locations = locations.clone();
    }
    check_range();
    place_levels(shapes_, starts_);
  }

  bool empty() const { return sizes.images * sizes.queries * sizes.heads * sizes.depth == 0; }

  // Room for what the kernels overwrite; zeros where none is started.
  at::Tensor gradient(const at::Tensor& of) const { return empty() ? at::zeros_like(of) : at::empty_like(of); }

 private:
  // Kernels count these in 32 bits.
  void check_range() const {
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    TORCH_CHECK_VALUE(sizes.queries <= most && sizes.samples() <= most && sizes.heads * sizes.depth <= most / 8 &&
                          sizes.tokens * sizes.heads * sizes.depth <= most,
                      "too large for the CUDA kernels: ", sizes.queries, " queries of ", sizes.samples(), " points, ",
                      sizes.tokens, " tokens of ", sizes.heads, " heads of ", sizes.depth, " channels");
  }

  // Levels on the CPU are checked here; those on the device in the kernel, so that nothing waits for it.
  void place_levels(const at::Tensor& shapes_, const at::Tensor& starts_) {
    if (shapes_.is_cpu() && starts_.is_cpu()) {
      const std::vector<Level> read = read_levels(shapes_, starts_, sizes.tokens);
      if (sizes.levels <= kGivenLevels) {
        std::copy(read.begin(), read.end(), levels.given);
        return;
      }
      shapes = at::empty({sizes.levels, 2}, value.options().dtype(at::kLong));
      starts = at::empty({sizes.levels}, shapes.options());
      write_levels_cuda(read.data(), sizes.levels, shapes.mutable_data_ptr<int64_t>(),
                        starts.mutable_data_ptr<int64_t>(), c10::cuda::getCurrentCUDAStream());
    } else {
      shapes = shapes_.to(value.device()).contiguous();
      starts = starts_.to(value.device()).contiguous();
    }
    levels.shapes = shapes.const_data_ptr<int64_t>();
    levels.starts = starts.const_data_ptr<int64_t>();
  }
};

template <typename T>
const T* read(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* write(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Null where there is no tensor.
template <typename T>
T* write_if(const at::Tensor& tensor) {
  return tensor.defined() ? write<T>(tensor) : nullptr;
}

// Calls body with a T for the value's type, a C for that of locations (and given weights) and an A for that of sums.
template <typename Body>
void dispatch(const Call& call, const Body& body) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.value.scalar_type(), "detrbench", [&] {
    using T = typename Native<scalar_t>::type;
    using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
    if (call.locations.scalar_type() == call.value.scalar_type()) {
      body(T{}, T{}, A{});
    } else {
      body(T{}, A{}, A{});
    }
  });
}

// Locations and weights as one type: the value's where both have it.
bool all_narrow(const at::Tensor& value, const at::Tensor& locations, const at::Tensor& weights) {
  return locations.scalar_type() == value.scalar_type() && weights.scalar_type() == value.scalar_type();
}

// Sums of gradients for the kernels to add to, in any order; none where they are to be the same bits on every run.
at::Tensor sums_for(const Call& call) {
  if (at::globalContext().deterministicAlgorithms() && !call.empty()) return {};
  return at::zeros(call.value.sizes(), call.value.options().dtype(call.accumulate));
}

// The gradient of the value, summed in a fixed order: the corners of all points, sorted by the token that they read.
// `weights` are those of the points, if any; `keys` is undefined but for key-aware attention.
template <typename T, typename C, typename A>
at::Tensor gathered(const Call& call, const at::Tensor& weights, const at::Tensor& grad_output,
                    const KeyTerms<T, A>& keys) {
  const Sizes& sizes = call.sizes;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const int64_t corners = 2 * call.locations.numel(), all = sizes.images * sizes.heads * sizes.tokens;
  const at::Tensor tokens = at::empty({corners}, call.value.options().dtype(at::kLong));
  const at::Tensor shares = at::empty({corners}, call.value.options().dtype(call.accumulate));
  list_corners_cuda<C, A>(sizes, call.levels, read<C>(call.locations), weights.defined() ? read<C>(weights) : nullptr,
                          write<int64_t>(tokens), write<A>(shares), stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  const auto [sorted, order] = at::sort(tokens, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Tensor bounds = at::searchsorted(sorted, at::arange(all + 1, tokens.options()));
  const at::Tensor grad_value = at::empty(call.value.sizes(), call.value.options());
  gather_gradients_cuda<T, A>(sizes, read<int64_t>(bounds), read<int64_t>(order), read<A>(shares),
                              read<T>(grad_output), keys, write<T>(grad_value), stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return grad_value;
}

at::Tensor msda_cuda(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                     const at::Tensor& locations, const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Call call(value, shapes, starts, locations, all_narrow(value, locations, weights));
  check_weights(weights, locations, value);
  const at::Tensor weights_ = weights.to(call.locations.scalar_type()).contiguous();
  const Sizes& sizes = call.sizes;
  const at::Tensor output = at::empty({sizes.images, sizes.queries, sizes.heads * sizes.depth}, value.options());
  if (call.empty()) return output;
  dispatch(call, [&](auto t, auto c, auto) {
    using T = decltype(t);
    using C = decltype(c);
    msda_forward_cuda<T, C>(sizes, call.levels, read<T>(call.value), read<C>(call.locations), read<C>(weights_),
                            write<T>(output), c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return output;
}

at::Tensor msda_from_offsets_cuda_(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                                   const at::Tensor& offsets, const at::Tensor& logits,
                                   const at::Tensor& references) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Call call(value, shapes, starts, offsets, all_narrow(value, offsets, logits), "offsets");
  const Sizes& sizes = call.sizes;
  check_weights(logits, offsets, value, "logits");
  check_references(sizes, references, value);
  const at::Tensor logits_ = logits.to(call.locations.scalar_type()).contiguous();
  const at::Tensor references_ = references.to(call.accumulate).contiguous();
  const at::Tensor output = at::empty({sizes.images, sizes.queries, sizes.heads * sizes.depth}, value.options());
  if (call.empty()) return output;
  dispatch(call, [&](auto t, auto c, auto a) {
    using T = decltype(t);
    using C = decltype(c);
    using A = decltype(a);
    msda_from_offsets_cuda<T, C, A>(sizes, call.levels, read<T>(call.value), read<C>(call.locations), read<C>(logits_),
                                    read<A>(references_), static_cast<int>(references.size(3)), write<T>(output),
                                    c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> msda_backward_cuda_(const at::Tensor& grad_output,
                                                                   const at::Tensor& value, const at::Tensor& shapes,
                                                                   const at::Tensor& starts,
                                                                   const at::Tensor& locations,
                                                                   const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Call call(value, shapes, starts, locations, all_narrow(value, locations, weights));
  check_weights(weights, locations, value);
  check_gradient(call.sizes, grad_output, value);
  const at::Tensor weights_ = weights.to(call.locations.scalar_type()).contiguous();
  const at::Tensor grad_output_ = grad_output.contiguous();
  at::Tensor sums = sums_for(call);
  const at::Tensor grad_locations = call.gradient(call.locations), grad_weights = call.gradient(weights_);
  if (!call.empty()) {
    dispatch(call, [&](auto t, auto c, auto a) {
      using T = decltype(t);
      using C = decltype(c);
      using A = decltype(a);
      msda_backward_cuda<T, C, A>(call.sizes, call.levels, read<T>(grad_output_), read<T>(call.value),
                                  read<C>(call.locations), read<C>(weights_), write_if<A>(sums),
                                  write<C>(grad_locations), write<C>(grad_weights), c10::cuda::getCurrentCUDAStream());
      if (!sums.defined()) sums = gathered<T, C, A>(call, weights_, grad_output_, {});
    });
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return {sums.to(value.scalar_type()), grad_locations.to(locations.scalar_type()),
          grad_weights.to(weights.scalar_type())};
}

std::tuple<at::Tensor, at::Tensor> key_aware_cuda(const at::Tensor& value, const at::Tensor& shapes,
                                                  const at::Tensor& starts, const at::Tensor& locations,
                                                  const at::Tensor& query) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Call call(value, shapes, starts, locations, locations.scalar_type() == value.scalar_type());
  const Sizes& sizes = call.sizes;
  check_query(sizes, query, value);
  const at::Tensor query_ = query.contiguous();
  const at::Tensor output = at::empty({sizes.images, sizes.queries, sizes.heads * sizes.depth}, value.options());
  const at::Tensor weights = at::empty(locations.sizes().slice(0, 5), value.options().dtype(call.accumulate));
  // Without channels all logits are zero.
  if (call.empty()) return {output, weights.fill_(1.0 / std::max<int64_t>(sizes.samples(), 1))};
  dispatch(call, [&](auto t, auto c, auto a) {
    using T = decltype(t);
    using C = decltype(c);
    using A = decltype(a);
    key_aware_forward_cuda<T, C, A>(sizes, call.levels, read<T>(call.value), read<C>(call.locations), read<T>(query_),
                                    write<T>(output), write<A>(weights), c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {output, weights};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> key_aware_backward_cuda_(const at::Tensor& grad_output,
                                                                        const at::Tensor& value,
                                                                        const at::Tensor& shapes,
                                                                        const at::Tensor& starts,
                                                                        const at::Tensor& locations,
                                                                        const at::Tensor& query,
                                                                        const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Call call(value, shapes, starts, locations, locations.scalar_type() == value.scalar_type());
  check_query(call.sizes, query, value);
  check_weights(weights, locations, value);
  check_gradient(call.sizes, grad_output, value);
  const at::Tensor grad_output_ = grad_output.contiguous(), query_ = query.contiguous();
  const at::Tensor weights_ = weights.to(call.accumulate).contiguous();
  at::Tensor sums = sums_for(call);
  const at::Tensor grad_locations = call.gradient(call.locations), grad_query = call.gradient(query_);
  const at::Tensor grad_logits = at::empty_like(weights_);
  if (!call.empty()) {
    dispatch(call, [&](auto t, auto c, auto a) {
      using T = decltype(t);
      using C = decltype(c);
      using A = decltype(a);
      key_aware_backward_cuda<T, C, A>(call.sizes, call.levels, read<T>(grad_output_), read<T>(call.value),
                                       read<C>(call.locations), read<T>(query_), read<A>(weights_),
                                       write<A>(grad_logits), write_if<A>(sums), write<C>(grad_locations),
                                       write<T>(grad_query), c10::cuda::getCurrentCUDAStream());
      if (!sums.defined()) {
        sums = gathered<T, C, A>(call, {}, grad_output_, {read<T>(query_), read<A>(weights_), read<A>(grad_logits)});
      }
    });
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return {sums.to(value.scalar_type()), grad_locations.to(locations.scalar_type()), grad_query};
}

}  // namespace

TORCH_LIBRARY_IMPL(detrbench, CUDA, library) {
  library.impl("msda", &msda_cuda);
  library.impl("msda_backward", &msda_backward_cuda_);
  library.impl("msda_from_offsets", &msda_from_offsets_cuda_);
  library.impl("key_aware_attention", &key_aware_cuda);
  library.impl("key_aware_attention_backward", &key_aware_backward_cuda_);
}

}  // namespace detrbench
