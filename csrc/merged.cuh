// Gradients of values, summed over the points of a block before they reach global memory: neighbouring queries read the
// same tokens, and additions to global memory are what a backward waits for.
#pragma once

#include "corners.cuh"

namespace detrbench {

// In the place of `Merged` where nothing is added up.
struct Nothing {};

// What a block adds to the values of one head: a list of points for each token. The gradient of a point's sample is a
// sum of kTerms rows that belong to its query, each times a factor of the point. In shared memory.
template <typename A, typename Task, int V, int kTerms>
struct Merged {
  static constexpr int kOfGroup = 4 * Task::kPoints;  // corners that a group has at once
  static constexpr int kCorners = kMaxGroups * kOfGroup;

  struct alignas(sizeof(A) * (kTerms > 1 ? 4 : 2)) Node {
    A factor[kTerms];
    int next;
  };

  // Slots of a hash table with open addressing; there are as many as there can be tokens.
  int token[kCorners];
  int first[kCorners];  // node of the list, -1: none
  Node nodes[kCorners];
  unsigned short used[kCorners];  // slots, in any order
  int count;
  Pack<A, V> rows[kTerms][kThreads];  // of this thread's channels

  static_assert((kCorners & (kCorners - 1)) == 0);

  __device__ void set_row(int term, const A* x) {
#pragma unroll
    for (int v = 0; v < V; ++v) rows[term][threadIdx.x].at[v] = x[v];
  }

  // Adds what `points` points of the task's tile give to the values of their corners; `to` is where this thread's
  // channels of token 0 are, if they are `within` the head's, and factors(point's number, factors) sets kTerms of them.
  // Every thread of the block must call it, its rows set.
  template <typename Factors>
  __device__ __forceinline__ void add_tile(const Task& task, int points, A* to, bool within, const Factors& factors) {
    for (int i = threadIdx.x; i < kCorners; i += blockDim.x) token[i] = first[i] = -1;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    list(task, points, factors);
    __syncthreads();
    add_lists(task, to, within);
    __syncthreads();
  }

 private:
  template <typename Factors>
  __device__ __forceinline__ void list(const Task& task, int points, const Factors& factors) {
    for (int i = task.lane; task.active && i < 4 * points; i += task.lanes) {
      const int corner = task.tile.points[i / 4].corner[i % 4];
      if (corner < 0) continue;
      A of_point[kTerms];
      factors(i / 4, of_point);
      Node& node = nodes[task.group * kOfGroup + i];
#pragma unroll
      for (int t = 0; t < kTerms; ++t) node.factor[t] = task.tile.points[i / 4].share[i % 4] * of_point[t];
      node.next = atomicExch(&first[slot_of(corner)], task.group * kOfGroup + i);
    }
  }

  __device__ __forceinline__ void add_lists(const Task& task, A* to, bool within) const {
    for (int i = task.group; i < count; i += task.groups()) {
      A sum[V] = {};
      for (int n = first[used[i]]; n >= 0;) {
        const Node node = nodes[n];
#pragma unroll
        for (int t = 0; t < kTerms; ++t) {
          add(rows[t][n / kOfGroup * task.lanes + task.lane], node.factor[t], sum);
        }
        n = node.next;
      }
      if (within) add_atomically<V>(to + token[used[i]], sum);
    }
  }

  __device__ __forceinline__ int slot_of(int wanted) {
    unsigned slot = static_cast<unsigned>(wanted) * 2654435761u / (0x100000000u / kCorners);
    while (true) {
      const int found = atomicCAS(&token[slot], -1, wanted);
      if (found == -1) used[atomicAdd(&count, 1)] = static_cast<unsigned short>(slot);
      if (found == -1 || found == wanted) return static_cast<int>(slot);
      slot = (slot + 1) % kCorners;
    }
  }
};

}  // namespace detrbench
