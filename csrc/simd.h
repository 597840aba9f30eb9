// Vectors as wide as the machine's registers, with GCC's and Clang's vector extensions.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

// Also where the compiler thinks better: vectors must not travel through memory from call to call.
#define DETRBENCH_INLINE inline __attribute__((always_inline))

namespace detrbench {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;  // SSE2, NEON; elsewhere the compiler makes do
#endif

template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t index __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t index __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vec = typename VectorOf<T>::type;
template <typename T>
using Index = typename VectorOf<T>::index;
template <typename T>
constexpr int kLanes = kVectorBytes / sizeof(T);

typedef int64_t Wide __attribute__((vector_size(kVectorBytes)));  // addresses
constexpr int kWideLanes = kVectorBytes / sizeof(int64_t);
template <typename T>
constexpr int kHalves = kLanes<T> / kWideLanes;  // wide vectors for as many addresses as a vector has lanes

// The type that sums are kept in.
template <typename T>
struct AccumulateOf {
  using type = float;
};
template <>
struct AccumulateOf<double> {
  using type = double;
};
template <typename T>
using Accumulate = typename AccumulateOf<T>::type;

// The type that values are gathered in. Half is widened beforehand: only BFloat16 widens by a shift.
template <typename T>
struct GatherOf {
  using type = T;
};
template <>
struct GatherOf<c10::Half> {
  using type = float;
};
template <typename T>
using Gather = typename GatherOf<T>::type;

DETRBENCH_INLINE Vec<float> load(const float* from) {
  Vec<float> vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

DETRBENCH_INLINE Vec<double> load(const double* from) {
  Vec<double> vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

DETRBENCH_INLINE Vec<float> load(const c10::BFloat16* from) {
#if defined(__AVX512F__)  // one instruction that GCC does not find: it widens the two halves apart
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return reinterpret_cast<Vec<float>>(_mm512_slli_epi32(bits, 16));
#elif defined(__AVX2__)
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return reinterpret_cast<Vec<float>>(_mm256_slli_epi32(bits, 16));
#else
  typedef uint16_t Narrow __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  Narrow bits;
  std::memcpy(&bits, from, sizeof(bits));
  return reinterpret_cast<Vec<float>>(__builtin_convertvector(bits, Bits) << 16);
#endif
}

template <typename T>
DETRBENCH_INLINE void store(T* to, Vec<T> vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

// Rounds to nearest even, as PyTorch does.
DETRBENCH_INLINE void store(c10::BFloat16* to, Vec<float> vector) {
  typedef uint16_t Narrow __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  const Bits bits = reinterpret_cast<Bits>(vector);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Narrow narrow = __builtin_convertvector(vector == vector ? rounded : Bits{} + 0x7fc0, Narrow);
  std::memcpy(to, &narrow, sizeof(narrow));
}

template <typename T>
DETRBENCH_INLINE Vec<T> permute(Vec<T> a, Vec<T> b, Index<T> from) {
#if defined(__clang__)
  Vec<T> result;  // clang turns this into a shuffle when `from` is a constant
  for (int i = 0; i < kLanes<T>; ++i) result[i] = from[i] < kLanes<T> ? a[from[i]] : b[from[i] - kLanes<T>];
  return result;
#else
  return __builtin_shuffle(a, b, from);
#endif
}

// Every second element of the next two vectors.
template <typename T>
DETRBENCH_INLINE Vec<T> every_second(const T* from, int first) {
  Index<T> lanes;
  for (int i = 0; i < kLanes<T>; ++i) lanes[i] = 2 * i + first;
  return permute<T>(load(from), load(from + kLanes<T>), lanes);
}

// Half h of the lanes, or all of them, as 64-bit integers.
template <typename T>
DETRBENCH_INLINE Wide widened(Index<T> lanes, int h) {
  if constexpr (kHalves<T> == 1) {
    return lanes;
  } else {
    typedef int32_t Half __attribute__((vector_size(kVectorBytes / 2)));
    Half half;
    std::memcpy(&half, reinterpret_cast<const char*>(&lanes) + h * sizeof(half), sizeof(half));
    return __builtin_convertvector(half, Wide);
  }
}

// Rounded down; the argument must fit an index.
template <typename T>
DETRBENCH_INLINE Index<T> floor_index(Vec<T> x) {
  const Index<T> toward_zero = __builtin_convertvector(x, Index<T>);
  return toward_zero + (__builtin_convertvector(toward_zero, Vec<T>) > x);  // a true comparison is -1
}

// Lane i of the result: within each group of 2H lanes, the first H hold `a` folded to H lanes, the others `b`.
template <typename T, int H>
DETRBENCH_INLINE Vec<T> fold(Vec<T> a, Vec<T> b) {
  Index<T> near, far;
  for (int i = 0; i < kLanes<T>; ++i) {
    const bool first = i % (2 * H) < H;
    near[i] = first ? i : kLanes<T> + i;
    far[i] = first ? i + H : kLanes<T> + i - H;
  }
  return permute<T>(a, b, near) + permute<T>(a, b, far);
}

// Sums of as many vectors as a vector has lanes: lane i of the result is the sum of rows[i]. Overwrites `rows`.
template <typename T, int H = kLanes<T> / 2>
DETRBENCH_INLINE Vec<T> row_sums(Vec<T>* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < H; ++i) rows[i] = fold<T, H>(rows[i], rows[i + H]);
  if constexpr (H == 1) {
    return rows[0];
  } else {
    return row_sums<T, H / 2>(rows);
  }
}

// Every lane holds what `combine` makes of all lanes.
template <typename T, int H = kLanes<T> / 2, typename Combine>
DETRBENCH_INLINE Vec<T> across(Vec<T> x, const Combine& combine) {
  Index<T> other;
  for (int i = 0; i < kLanes<T>; ++i) other[i] = i ^ H;
  x = combine(x, permute<T>(x, x, other));
  if constexpr (H == 1) {
    return x;
  } else {
    return across<T, H / 2>(x, combine);
  }
}

// -1 in the first `count` lanes, 0 in the others.
template <typename T>
DETRBENCH_INLINE Index<T> first_lanes(int64_t count) {
  Index<T> lanes;
  for (int i = 0; i < kLanes<T>; ++i) lanes[i] = i;
  return lanes < static_cast<std::conditional_t<sizeof(T) == 4, int32_t, int64_t>>(std::min<int64_t>(count, kLanes<T>));
}

// e^x to the last bits, for x <= 0; below the smallest normal number, that one. Not a number stays so.
template <typename T>
DETRBENCH_INLINE Vec<T> exp_of_negative(Vec<T> x) {
  constexpr bool single = sizeof(T) == 4;
  constexpr T lowest = single ? -87 : -708, log2_e = 1.4426950408889634;
  // ln 2 in two parts, of which the first has so few digits that its products with whole numbers are exact
  constexpr T ln2_high = single ? 0.693359375 : 6.93147180369123816490e-01;
  constexpr T ln2_low = single ? -2.12194440e-4 : 1.90821492927058770002e-10;
  constexpr int terms = single ? 7 : 13, mantissa_bits = single ? 23 : 52, bias = single ? 127 : 1023;
  x = x < lowest ? Vec<T>{} + lowest : x;
  const Index<T> power = floor_index<T>(x * log2_e + T(0.5));
  const Vec<T> whole = __builtin_convertvector(power, Vec<T>);
  const Vec<T> rest = x - whole * ln2_high - whole * ln2_low;  // at most half of ln 2
  constexpr auto coefficient = [](int k) {  // of Taylor's series
    T factorial = 1;
    for (int i = 2; i <= k; ++i) factorial *= i;
    return 1 / factorial;
  };
  Vec<T> sum = Vec<T>{} + coefficient(terms);
#pragma GCC unroll 16
  for (int k = terms - 1; k >= 0; --k) sum = sum * rest + coefficient(k);
  return sum * reinterpret_cast<Vec<T>>((power + bias) << mantissa_bits);
}

// Lanes first, first + 1, ... of x and y in turn.
template <typename T>
DETRBENCH_INLINE Vec<T> interleave(Vec<T> x, Vec<T> y, int first) {
  Index<T> lanes;
  for (int i = 0; i < kLanes<T>; ++i) lanes[i] = first + i / 2 + (i % 2 ? kLanes<T> : 0);
  return permute<T>(x, y, lanes);
}

// Asks for memory that is read soon; addresses beyond an array do no harm.
template <typename T>
DETRBENCH_INLINE void prefetch_lines(const T* from, int64_t count) {
  for (int64_t byte = 0; byte < count * static_cast<int64_t>(sizeof(T)); byte += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(from) + byte);
  }
}

// The first `count` lanes; zero in the others.
template <typename T>
DETRBENCH_INLINE Vec<T> load_part(const T* from, int64_t count) {
  if (count == kLanes<T>) return load(from);
  T padded[kLanes<T>] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return load(padded);
}

// The first `count` elements of V vectors, in the type they are stored in.
template <int V, typename T>
DETRBENCH_INLINE void store_part(T* to, const Vec<Accumulate<T>>* vectors, int64_t count) {
  using A = Accumulate<T>;
  if constexpr (!std::is_same_v<T, c10::Half>) {
    if (count >= V * kLanes<A>) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(to + v * kLanes<A>, vectors[v]);
      return;
    }
  }
  for (int64_t i = 0; i < std::min<int64_t>(count, V * kLanes<A>); ++i) {
    to[i] = static_cast<T>(vectors[i / kLanes<A>][i % kLanes<A>]);
  }
}

// A row as sums are kept.
template <typename T>
DETRBENCH_INLINE void widen(const T* from, int64_t depth, Accumulate<T>* to) {
  for (int64_t d = 0; d < depth; ++d) to[d] = static_cast<Accumulate<T>>(from[d]);
}

}  // namespace detrbench
