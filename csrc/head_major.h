// Values laid out head by head: (N, M, S, padded D). In (N, S, M, D) the rows of a head lie a power of two apart and
// share few sets of the cache. Rows are padded with zeros to whole vectors.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "scratch.h"
#include "simd.h"
#include "sizes.h"

namespace detrbench {

constexpr int64_t kTokensAtOnce = 64;

template <typename T>
int64_t padded_depth(const Sizes& sizes) {
  constexpr int64_t lanes = kLanes<Accumulate<T>>;
  return (sizes.depth + lanes - 1) / lanes * lanes;
}

// Elements of a head-major copy.
template <typename T>
int64_t head_major_size(const Sizes& sizes) {
  return sizes.images * sizes.heads * sizes.tokens * padded_depth<T>(sizes);
}

// Calls body(row, copy) for each row (image, token, head) of (N, S, M, D) and the offset of its head-major copy.
template <typename T, typename Body>
void for_each_row(const Sizes& sizes, const Body& body) {
  const int64_t depth = sizes.depth, padded = padded_depth<T>(sizes);
  at::parallel_for(0, sizes.images * sizes.tokens, kTokensAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t image = token / sizes.tokens, in_image = token % sizes.tokens;
      for (int64_t head = 0; head < sizes.heads; ++head) {
        body((token * sizes.heads + head) * depth, ((image * sizes.heads + head) * sizes.tokens + in_image) * padded);
      }
    }
  });
}

template <typename T, typename G>
void to_head_major(const Sizes& sizes, const T* value, G* copy) {
  const int64_t depth = sizes.depth, padded = padded_depth<T>(sizes);
  for_each_row<T>(sizes, [=](int64_t row, int64_t at) {
    std::transform(value + row, value + row + depth, copy + at, [](T x) { return static_cast<G>(x); });
    std::fill(copy + at + depth, copy + at + padded, G(0));
  });
}

template <typename T, typename G>
void from_head_major(const Sizes& sizes, const G* copy, T* value) {
  const int64_t depth = sizes.depth;
  for_each_row<T>(sizes, [=](int64_t row, int64_t at) {
    for (int64_t d = 0; d < depth; ++d) value[row + d] = static_cast<T>(copy[at + d]);
  });
}

// Where the rows of a value lie: token t of (image, head) at base(image, head) + t * stride.
template <typename G>
struct Rows {
  G* first;
  int64_t stride, head_stride, image_stride;
  G* base(int64_t image, int64_t head) const { return first + image * image_stride + head * head_stride; }
  int64_t token_bytes() const { return stride * static_cast<int64_t>(sizeof(G)); }
};

template <typename T, typename G>
Rows<G> head_major_rows(const Sizes& sizes, G* copy) {
  const int64_t padded = padded_depth<T>(sizes), head = sizes.tokens * padded;
  return {copy, padded, head, sizes.heads * head};
}

template <typename G>
Rows<G> token_major_rows(const Sizes& sizes, G* value) {
  return {value, sizes.heads * sizes.depth, sizes.depth, sizes.tokens * sizes.heads * sizes.depth};
}

// A head-major copy pays when each row is read about once or more. Rows that end inside a vector need its padding.
template <typename T>
bool needs_copy(const Sizes& sizes) {
  const int64_t reads = 4 * sizes.queries * sizes.levels * sizes.points;
  return padded_depth<T>(sizes) != sizes.depth || !std::is_same_v<T, Gather<T>> || reads > 4 * sizes.tokens;
}

// The values as they are gathered: the caller's, or a head-major copy in `scratch`.
template <typename T>
Rows<const Gather<T>> value_rows(const Sizes& sizes, const T* value, Scratch& scratch) {
  using G = Gather<T>;
  if constexpr (std::is_same_v<T, G>) {
    if (!needs_copy<T>(sizes)) return token_major_rows<const G>(sizes, value);
  }
  G* copy = static_cast<G*>(scratch.take(head_major_size<T>(sizes) * sizeof(G)));
  to_head_major(sizes, value, copy);
  return head_major_rows<T, const G>(sizes, copy);
}

}  // namespace detrbench
