// CUDA on a CPU, as far as the kernels in csrc/ use it: each thread of a block is a fiber, and runs on its own until it
// waits for others. Which one runs next is drawn anew each time. README.md says what this finds and what it cannot.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <math.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

using cudaStream_t = void*;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulation {

inline constexpr int kWarp = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;

// Runs the kernel for every thread of every block, block by block in a random order. Ends the program, with a sentence,
// where a GPU would refuse the launch, or where its threads would wait for each other in vain.
void launch(dim3 blocks, dim3 threads, size_t shared, cudaStream_t stream, const std::function<void()>& kernel);

// The running thread waits until its warp, or its block, has come to the same line.
void wait_for_warp(unsigned mask, int line);
void wait_for_block(int line);

// The running thread gives `size` bytes, and gets those that the lane `from` of its warp gives at the same line.
void exchange(unsigned mask, int from, const void* given, void* got, size_t size, int line);

unsigned thread();         // in its block
dim3 block();              // in the grid
dim3 threads_of_block();
dim3 blocks_of_grid();
bool first_of_its_block(const void* shared);  // to see this array of shared memory
bool levels_on_host();     // as the test wishes; read by the translated registration

// Shared memory holds anything at the start of a block: here NaN in every type of floating point.
template <typename T>
void fill_shared(T& shared) {
  if (first_of_its_block(&shared)) std::memset(reinterpret_cast<char*>(&shared), 0xff, sizeof(shared));
}

template <unsigned (*Get)()>
struct Coordinate {
  operator unsigned() const { return Get(); }
};
inline unsigned block_x() { return block().x; }
inline unsigned block_y() { return block().y; }
inline unsigned threads_x() { return threads_of_block().x; }
inline unsigned blocks_x() { return blocks_of_grid().x; }

struct ThreadIndex {
  Coordinate<thread> x;
};
struct BlockIndex {
  Coordinate<block_x> x;
  Coordinate<block_y> y;
};
struct BlockSize {
  Coordinate<threads_x> x;
};
struct GridSize {
  Coordinate<blocks_x> x;
};

}  // namespace emulation

inline constexpr emulation::ThreadIndex threadIdx;
inline constexpr emulation::BlockIndex blockIdx;
inline constexpr emulation::BlockSize blockDim;
inline constexpr emulation::GridSize gridDim;

// The default argument is the caller's line.
inline void __syncwarp(unsigned mask = emulation::kFullMask, int line = __builtin_LINE()) {
  emulation::wait_for_warp(mask, line);
}
inline void __syncthreads(int line = __builtin_LINE()) { emulation::wait_for_block(line); }

template <typename A>
A __shfl_sync(unsigned mask, A x, int from, int line = __builtin_LINE()) {
  A got;
  emulation::exchange(mask, from, &x, &got, sizeof(x), line);
  return got;
}
template <typename A>
A __shfl_xor_sync(unsigned mask, A x, int step, int line = __builtin_LINE()) {
  return __shfl_sync(mask, x, static_cast<int>(threadIdx.x % emulation::kWarp) ^ step, line);
}

struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <typename A>
A atomicAdd(A* to, A x) {
  const A before = *to;
  *to = before + x;
  return before;
}
inline float4 atomicAdd(float4* to, float4 x) {
  const float4 before = *to;
  *to = {before.x + x.x, before.y + x.y, before.z + x.z, before.w + x.w};
  return before;
}

template <typename A>
A atomicExch(A* to, A x) {
  const A before = *to;
  *to = x;
  return before;
}
template <typename A>
A atomicCAS(A* to, A expected, A x) {
  const A before = *to;
  if (before == expected) *to = x;
  return before;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }
inline float __uint_as_float(unsigned x) {
  float made;
  std::memcpy(&made, &x, sizeof(made));
  return made;
}

using __half = c10::Half;
using __nv_bfloat16 = c10::BFloat16;
inline float __half2float(__half x) { return static_cast<float>(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return static_cast<float>(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
