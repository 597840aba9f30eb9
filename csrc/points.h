// Where a query's head samples and with which weights: given, or made of what the query says of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "simd.h"
#include "sizes.h"
#include "softmax.h"

namespace detrbench {

// Arrays by (image, query, head, level, point): locations with x and y, and weights. Gradients are for the backward.
template <typename A>
struct GivenPoints {
  const A* locations;
  const A* weights;
  A* grad_locations = nullptr;
  A* grad_weights = nullptr;
};

// Offsets (N, Q, M, L, P, 2) count cells around a reference (N, Q, L, 2) x, y, or parts of half the side around one that
// is (N, Q, L, 4) cx, cy, w, h; weights are the softmax of logits (N, Q, M, L, P) over levels and points.
template <typename A>
struct OffsetPoints {
  const A* offsets;
  const A* logits;
  const A* references;
  int64_t coordinates;  // 2 or 4, of a reference
  A* grad_offsets = nullptr;
  A* grad_logits = nullptr;
  A* grad_references = nullptr;  // (N, Q, M, L, 2 or 4): of each head apart
};

// What a thread reads points with. `read` gives the points of one query and head, by the number of its row; `write`, after
// it and for the same row, takes what was left in `grad_locations` and `grad_weights`.
template <typename Points>
class PointReader;

template <typename A>
class PointReader<GivenPoints<A>> {
 public:
  PointReader(const Sizes& sizes, const Level*, const GivenPoints<A>& points) : points_(points), samples_(sizes.samples()) {}

  // Must be inlined: GCC takes a function that only prefetches for one without effect, and drops its calls.
  DETRBENCH_INLINE void prefetch(int64_t row) const {
    prefetch_lines(points_.locations + 2 * row * samples_, 2 * samples_);
    prefetch_lines(points_.weights + row * samples_, samples_);
  }

  DETRBENCH_INLINE void read(int64_t row) { first_ = row * samples_; }
  const A* locations() const { return points_.locations + 2 * first_; }
  const A* weights() const { return points_.weights + first_; }
  A* grad_locations() const { return points_.grad_locations + 2 * first_; }
  A* grad_weights() const { return points_.grad_weights + first_; }
  void write() const {}  // the gradients are where they belong

 private:
  const GivenPoints<A>& points_;
  int64_t samples_, first_ = 0;
};

template <typename A>
class PointReader<OffsetPoints<A>> {
 public:
  PointReader(const Sizes& sizes, const Level* levels, const OffsetPoints<A>& points)
      : sizes_(sizes), points_(points), samples_(sizes.samples()), locations_(2 * samples_), weights_(samples_),
        grad_locations_(2 * samples_), grad_weights_(samples_) {
    for (int64_t l = 0; l < sizes.levels; ++l) {
      const bool empty = levels[l].height == 0 || levels[l].width == 0;
      cells_.push_back(empty ? Step{0, 0} : Step{A(1) / levels[l].width, A(1) / levels[l].height});
    }
  }

  DETRBENCH_INLINE void prefetch(int64_t row) const {
    prefetch_lines(points_.offsets + 2 * row * samples_, 2 * samples_);
    prefetch_lines(points_.logits + row * samples_, samples_);
  }

  DETRBENCH_INLINE void read(int64_t row) {
    row_ = row;
    references_ = points_.references + row / sizes_.heads * sizes_.levels * points_.coordinates;
    const A* offset = points_.offsets + 2 * row * samples_;
    A* location = locations_.data();
    for (int64_t l = 0; l < sizes_.levels; ++l) {
      const A* reference = references_ + l * points_.coordinates;
      const Step step = step_of(l, reference);
      const Two centre = {reference[0], reference[1], reference[0], reference[1]}, steps = {step.x, step.y, step.x, step.y};
      int64_t p = 0;
      for (; p + 2 <= sizes_.points; p += 2, offset += 4, location += 4) {
        Two two;
        std::memcpy(&two, offset, sizeof(two));
        two = centre + two * steps;
        std::memcpy(location, &two, sizeof(two));
      }
      for (; p < sizes_.points; ++p, offset += 2, location += 2) {
        location[0] = reference[0] + offset[0] * step.x;
        location[1] = reference[1] + offset[1] * step.y;
      }
    }
    std::copy_n(points_.logits + row * samples_, samples_, weights_.data());
    softmax(weights_, samples_);
  }

  const A* locations() { return locations_.data(); }
  const A* weights() { return weights_.data(); }
  A* grad_locations() { return grad_locations_.data(); }
  A* grad_weights() { return grad_weights_.data(); }

  void write() {
    softmax_gradients(weights_, grad_weights_, samples_);
    std::copy_n(grad_weights_.data(), samples_, points_.grad_logits + row_ * samples_);
    const A *offset = points_.offsets + 2 * row_ * samples_, *from = grad_locations_.data();
    A* to = points_.grad_offsets + 2 * row_ * samples_;
    A* grad_reference = points_.grad_references + row_ * sizes_.levels * points_.coordinates;
    for (int64_t l = 0; l < sizes_.levels; ++l, grad_reference += points_.coordinates) {
      const Step step = step_of(l, references_ + l * points_.coordinates);
      A x = 0, y = 0, width = 0, height = 0;
      for (int64_t p = 0; p < sizes_.points; ++p, offset += 2, from += 2, to += 2) {
        x += from[0], y += from[1];
        width += from[0] * offset[0], height += from[1] * offset[1];
        to[0] = from[0] * step.x;
        to[1] = from[1] * step.y;
      }
      grad_reference[0] = x;
      grad_reference[1] = y;
      if (points_.coordinates == 2) continue;
      grad_reference[2] = width * half_part();
      grad_reference[3] = height * half_part();
    }
  }

 private:
  typedef A Two __attribute__((vector_size(4 * sizeof(A))));  // x and y of two points

  struct Step {  // by how much a location changes with its offset
    A x, y;
  };

  A half_part() const { return A(0.5) / std::max<int64_t>(sizes_.points, 1); }  // of a side, for an offset of 1

  Step step_of(int64_t level, const A* reference) const {
    return points_.coordinates == 2 ? cells_[level] : Step{reference[2] * half_part(), reference[3] * half_part()};
  }

  const Sizes& sizes_;
  const OffsetPoints<A>& points_;
  std::vector<Step> cells_;
  const A* references_ = nullptr;  // of the row's query, by level
  int64_t samples_, row_ = 0;
  Row<A> locations_, weights_, grad_locations_, grad_weights_;
};

}  // namespace detrbench
