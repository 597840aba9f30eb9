// How gradients of values are added up: not here, each corner of a point by itself, or summed over the points of a block
// before they reach global memory. Neighbouring queries read the same tokens, and additions to global memory are what a
// backward waits for.
#pragma once

#include "corners.cuh"

namespace detrbench {

// The three have one interface. A block's `Room` is in shared memory. The gradient of a point's sample is a sum of kTerms
// rows that belong to its query, each times a factor of the point: set_row(term, x) sets the channels of this thread, and
// add_tile(task, points, sums, at, within, factors) adds what the first points of the task's tile give. This thread's
// channels of token 0 are sums[at] and the following, if they are `within` the head's; factors(number of a point, factors)
// sets kTerms of them. Every thread of a block must make every call.

// For `gathered_cuda.h`, which sums in an order of its own.
template <typename A, typename Task, int V, int kTerms>
struct Unsummed {
  struct Room {};

  __device__ explicit Unsummed(Room&) {}
  __device__ void set_row(int, const A*) {}
  template <typename Factors>
  __device__ void add_tile(const Task&, int, A*, int64_t, bool, const Factors&) {}
};

template <typename A, typename Task, int V, int kTerms>
struct Each {
  struct Room {};

  A rows[kTerms][V];

  __device__ explicit Each(Room&) {}

  __device__ __forceinline__ void set_row(int term, const A* x) {
#pragma unroll
    for (int v = 0; v < V; ++v) rows[term][v] = x[v];
  }

  template <typename Factors>
  __device__ __forceinline__ void add_tile(const Task& task, int points, A* sums, int64_t at, bool within,
                                           const Factors& factors) const {
    for (int p = 0; task.active && within && p < points; ++p) {
      const auto& point = task.tile.points[p];
      A of_point[kTerms];
      factors(p, of_point);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (point.corner[c] < 0) continue;
        A sum[V] = {};
#pragma unroll
        for (int t = 0; t < kTerms; ++t) {
#pragma unroll
          for (int v = 0; v < V; ++v) sum[v] += point.share[c] * of_point[t] * rows[t][v];
        }
        add_atomically<V>(sums + at + point.corner[c], sum);
      }
    }
  }
};

// For each token that the block reads, a list of the corners that read it.
template <typename A, typename Task, int V, int kTerms>
struct Merged {
  static constexpr int kOfGroup = 4 * Task::kPoints;  // corners that a group has at once
  static constexpr int kCorners = kMaxGroups * kOfGroup;
  static_assert((kCorners & (kCorners - 1)) == 0 && kCorners < 1 << 16);

  // A corner of a point, in the list of its token.
  struct alignas(sizeof(A) * (kTerms > 1 ? 4 : 2)) Node {
    A factor[kTerms];
    int next;  // -1: the last
  };

  struct Room {
    // Slots of a hash table with open addressing; there are as many as there can be tokens.
    int token[kCorners];
    int head[kCorners];  // node of the list, -1: none
    Node nodes[kCorners];
    unsigned short used[kCorners];  // slots, in any order
    int count;
    Pack<A, V> rows[kTerms][kThreads];  // of each thread's channels
  };

  Room& room;

  __device__ explicit Merged(Room& room_) : room(room_) {}

  __device__ void set_row(int term, const A* x) {
#pragma unroll
    for (int v = 0; v < V; ++v) room.rows[term][threadIdx.x].at[v] = x[v];
  }

  template <typename Factors>
  __device__ __forceinline__ void add_tile(const Task& task, int points, A* sums, int64_t at, bool within,
                                           const Factors& factors) {
    for (int i = threadIdx.x; i < kCorners; i += blockDim.x) room.token[i] = room.head[i] = -1;
    if (threadIdx.x == 0) room.count = 0;
    __syncthreads();
    list(task, points, factors);
    __syncthreads();
    add_lists(task, sums + at, within);
    __syncthreads();
  }

 private:
  template <typename Factors>
  __device__ __forceinline__ void list(const Task& task, int points, const Factors& factors) {
    for (int i = task.lane; task.active && i < 4 * points; i += task.lanes) {
      const auto& point = task.tile.points[i / 4];
      const int corner = point.corner[i % 4], number = task.group * kOfGroup + i;
      if (corner < 0) continue;
      A of_point[kTerms];
      factors(i / 4, of_point);
      Node& node = room.nodes[number];
#pragma unroll
      for (int t = 0; t < kTerms; ++t) node.factor[t] = point.share[i % 4] * of_point[t];
      node.next = atomicExch(&room.head[slot_of(corner)], number);
    }
  }

  __device__ __forceinline__ void add_lists(const Task& task, A* to, bool within) const {
    for (int i = task.group; i < room.count; i += task.groups()) {
      const int slot = room.used[i];
      A sum[V] = {};
      for (int n = room.head[slot]; n >= 0;) {
        const Node node = room.nodes[n];
        // Where the rows are follows from the number alone: they are read while the node is.
        const int row = n / kOfGroup * task.lanes + task.lane;
#pragma unroll
        for (int t = 0; t < kTerms; ++t) add(room.rows[t][row], node.factor[t], sum);
        n = node.next;
      }
      if (within) add_atomically<V>(to + room.token[slot], sum);
    }
  }

  __device__ __forceinline__ int slot_of(int wanted) {
    unsigned slot = static_cast<unsigned>(wanted) * 2654435761u / (0x100000000u / kCorners);
    while (true) {
      const int found = atomicCAS(&room.token[slot], -1, wanted);
      if (found == -1) room.used[atomicAdd(&room.count, 1)] = static_cast<unsigned short>(slot);
      if (found == -1 || found == wanted) return static_cast<int>(slot);
      slot = (slot + 1) % kCorners;
    }
  }
};

// Of so many tokens for each query or fewer, blocks merge: with fewer queries they share too few tokens for it to pay.
constexpr int64_t kDense = 8;

inline bool merging_pays(const Sizes& sizes) { return sizes.queries * kDense >= sizes.tokens; }

}  // namespace detrbench
