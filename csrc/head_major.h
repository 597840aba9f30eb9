// Values laid out head by head: (N, M, S, padded D). In (N, S, M, D) the rows of a head lie a power of two apart and
// share few sets of the cache. Rows are padded with zeros to whole vectors.
#pragma once

#include <ATen/Parallel.h>
#if defined(__unix__)
#include <unistd.h>
#endif

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

// Where the rows of a value lie: token t of (image, head) at base(image, head) + t * stride. Channels follow each other.
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

// Calls body(row, row of the copy) for each row (image, token, head).
template <typename A, typename B, typename Body>
void for_each_row(const Sizes& sizes, const Rows<A>& rows, const Rows<B>& copy, const Body& body) {
  at::parallel_for(0, sizes.images * sizes.tokens, kTokensAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t image = token / sizes.tokens, in_image = token % sizes.tokens;
      for (int64_t head = 0; head < sizes.heads; ++head) {
        body(rows.base(image, head) + in_image * rows.stride, copy.base(image, head) + in_image * copy.stride);
      }
    }
  });
}

// Whether rows that lie apart are read, or added to, so seldom that a head-major copy does not pay. The second level of
// the cache decides: of 512 KiB, the rows of a head reach what fits 64, and 4 reads of each row pay for the copy; of
// 1 MiB, 16 do not yet.
inline bool few_reads(const Sizes& sizes) {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const int64_t reads = sysconf(_SC_LEVEL2_CACHE_SIZE) >= 1 << 20 ? 16 : 4;
#else
  constexpr int64_t reads = 4;
#endif
  return 4 * sizes.queries * sizes.samples() <= reads * sizes.tokens;
}

// The values as they are gathered: the caller's, or a head-major copy in `scratch`. Rows that end inside a vector need
// its padding.
template <typename T>
Rows<const Gather<T>> value_rows(const Sizes& sizes, const Rows<const T>& value, Scratch& scratch) {
  using G = Gather<T>;
  const int64_t depth = sizes.depth, padded = padded_depth<T>(sizes);
  if constexpr (std::is_same_v<T, G>) {
    if (padded == depth && (value.stride == depth || few_reads(sizes))) return value;
  }
  G* copy = static_cast<G*>(scratch.take(head_major_size<T>(sizes) * sizeof(G)));
  for_each_row(sizes, value, head_major_rows<T>(sizes, copy), [=](const T* from, G* to) {
    std::transform(from, from + depth, to, [](T x) { return static_cast<G>(x); });
    std::fill(to + depth, to + padded, G(0));
  });
  return head_major_rows<T, const G>(sizes, copy);
}

}  // namespace detrbench
