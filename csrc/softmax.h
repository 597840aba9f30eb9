// Softmax over the points of one query and head, forward and backward, in memory that stays in the cache.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "simd.h"

namespace detrbench {

// Zeros to begin with, aligned to whole vectors.
template <typename T>
class Row {
 public:
  explicit Row(int64_t size) : vectors_((size + kLanes<T> - 1) / kLanes<T>) {}
  T* data() { return reinterpret_cast<T*>(vectors_.data()); }
  int64_t size() const { return static_cast<int64_t>(vectors_.size()) * kLanes<T>; }

 private:
  struct Aligned {
    Vec<T> vector;
  };
  std::vector<Aligned> vectors_;
};

template <typename T>
DETRBENCH_INLINE Vec<T> sum_across(Vec<T> x) {
  return across<T>(x, [](Vec<T> a, Vec<T> b) { return a + b; });
}

// The softmax of `count` numbers, in place; zeros beyond them.
template <typename T>
DETRBENCH_INLINE void softmax(Row<T>& row, int64_t count) {
  T* x = row.data();
  Vec<T> largest = Vec<T>{} + std::numeric_limits<T>::lowest(), sum = {};
  const auto larger = [](Vec<T> a, Vec<T> b) { return a > b ? a : b; };
  for (int64_t p = 0; p < count; p += kLanes<T>) {
    largest = first_lanes<T>(count - p) ? larger(load(x + p), largest) : largest;
  }
  largest = across<T>(largest, larger);
  for (int64_t p = 0; p < count; p += kLanes<T>) {
    const Vec<T> power = first_lanes<T>(count - p) ? exp_of_negative<T>(load(x + p) - largest) : Vec<T>{};
    store(x + p, power);
    sum += power;
  }
  const Vec<T> inverse = 1 / sum_across<T>(sum);
  for (int64_t p = 0; p < count; p += kLanes<T>) store(x + p, load(x + p) * inverse);
}

// Turns the gradients of `count` weights, which a softmax gave, into those of its logits, in place. Both rows hold zeros
// beyond.
template <typename T>
DETRBENCH_INLINE void softmax_gradients(Row<T>& weights, Row<T>& gradients, int64_t count) {
  T *w = weights.data(), *g = gradients.data();
  Vec<T> sum = {};
  for (int64_t p = 0; p < count; p += kLanes<T>) sum += load(w + p) * load(g + p);
  const Vec<T> mean = sum_across<T>(sum);
  for (int64_t p = 0; p < count; p += kLanes<T>) store(g + p, load(w + p) * (load(g + p) - mean));
}

}  // namespace detrbench
