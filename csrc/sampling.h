// Where a query samples: four corners and four bilinear weights for each of its points, a vector of points at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "simd.h"
#include "sizes.h"

namespace detrbench {

// The levels laid out by point, so that one instruction treats points of different levels alike; as many points as
// one vector holds. T is the type of the locations.
template <typename T>
struct LevelBlock {
  Vec<T> width, height;           // -1 where there is no point or the level is empty: no location reaches that
  Index<T> columns, rows, start;  // the same as integers; first token
  Wide row_bytes[kHalves<T>];     // from a pixel to the one below it
};

// The points of some levels. Points beyond the last one fill up the last block.
template <typename T>
class PointTable {
 public:
  // Levels [first, last), of a head whose tokens lie `token_bytes` apart.
  PointTable(const Sizes& sizes, const Level* levels, int64_t first, int64_t last, int64_t token_bytes)
      : size_((last - first) * sizes.points), token_bytes_(token_bytes), blocks_((size_ + kLanes<T> - 1) / kLanes<T>) {
    for (int64_t p = 0; p < static_cast<int64_t>(blocks_.size()) * kLanes<T>; ++p) {
      LevelBlock<T>& block = blocks_[p / kLanes<T>];
      const int lane = p % kLanes<T>;
      Level level = p < size_ ? levels[first + p / sizes.points] : Level{0, 0, 0};
      const bool empty = level.height == 0 || level.width == 0;
      if (empty) level = {0, 0, 0};  // the other size may be any number
      block.width[lane] = empty ? T(-1) : static_cast<T>(level.width);
      block.height[lane] = empty ? T(-1) : static_cast<T>(level.height);
      block.columns[lane] = level.width;
      block.rows[lane] = level.height;
      block.start[lane] = level.start;
      block.row_bytes[lane / kWideLanes][lane % kWideLanes] = level.width * token_bytes;
    }
  }

  int64_t size() const { return size_; }
  int64_t token_bytes() const { return token_bytes_; }
  const std::vector<LevelBlock<T>>& blocks() const { return blocks_; }

 private:
  int64_t size_;
  int64_t token_bytes_;
  std::vector<LevelBlock<T>> blocks_;
};

// The corners of as many points as a vector holds: top left, top right, bottom left, bottom right.
// G is what is pointed to: a value to gather, or a gradient to add to.
template <typename T, typename G>
struct CornerBlock {
  alignas(kVectorBytes) G* address[4][kLanes<T>];
  alignas(kVectorBytes) T share[4][kLanes<T>];  // bilinear weight times attention weight; 0 for corners outside
  Vec<T> right, down;                           // from the top left corner, in pixels
  Index<T> inside;                              // bit c: corner c lies inside; 0 where the point reaches nothing
};

template <typename G>
DETRBENCH_INLINE void store_addresses(G** to, Wide addresses) {
  static_assert(sizeof(G*) == sizeof(int64_t));
  std::memcpy(to, &addresses, sizeof(addresses));
}

// One block of points: `locations` holds x and y of each lane in turn, `weights` the attention weights. Corners
// beyond the level point to `outside` and have no share, so that infinity in a value never meets a weight of zero.
template <typename T, typename G>
DETRBENCH_INLINE void prepare(const LevelBlock<T>& level, const T* locations, const T* weights, G* base,
                              int64_t token_bytes, G* outside, CornerBlock<T, G>& corners) {
  const Vec<T> x = every_second(locations, 0) * level.width - T(0.5);
  const Vec<T> y = every_second(locations, 1) * level.height - T(0.5);
  const Index<T> reached = (x > -1) & (x < level.width) & (y > -1) & (y < level.height);  // not a number: false
  const Vec<T> zero = {};
  const Vec<T> x_safe = reached ? x : zero, y_safe = reached ? y : zero;
  const Index<T> column = floor_index<T>(x_safe), row = floor_index<T>(y_safe);
  const Vec<T> right = x_safe - __builtin_convertvector(column, Vec<T>);
  const Vec<T> down = y_safe - __builtin_convertvector(row, Vec<T>);
  const Index<T> in_left = reached & (column >= 0), in_right = reached & (column + 1 < level.columns);
  const Index<T> in_top = row >= 0, in_bottom = row + 1 < level.rows;
  const Vec<T> weight = reached ? load(weights) : zero;
  const Vec<T> top = weight * (1 - down), bottom = weight * down;
  store(corners.share[0], (in_left & in_top) ? top * (1 - right) : zero);
  store(corners.share[1], (in_right & in_top) ? top * right : zero);
  store(corners.share[2], (in_left & in_bottom) ? bottom * (1 - right) : zero);
  store(corners.share[3], (in_right & in_bottom) ? bottom * right : zero);
  corners.inside = (((in_left & 1) | (in_right & 2)) & in_top) | (((in_left & 4) | (in_right & 8)) & in_bottom);
  const Index<T> token = level.start + row * level.columns + column;
  const int64_t first = reinterpret_cast<intptr_t>(base), nowhere = reinterpret_cast<intptr_t>(outside);
  for (int h = 0; h < kHalves<T>; ++h) {
    const Wide top_left = widened<T>(token, h) * token_bytes + first, bottom_left = top_left + level.row_bytes[h];
    const Wide left = widened<T>(in_left, h), right_ = widened<T>(in_right, h);
    const Wide above = widened<T>(in_top, h), below = widened<T>(in_bottom, h);
    store_addresses(corners.address[0] + h * kWideLanes, (left & above) ? top_left : Wide{} + nowhere);
    store_addresses(corners.address[1] + h * kWideLanes, (right_ & above) ? top_left + token_bytes : Wide{} + nowhere);
    store_addresses(corners.address[2] + h * kWideLanes, (left & below) ? bottom_left : Wide{} + nowhere);
    store_addresses(corners.address[3] + h * kWideLanes, (right_ & below) ? bottom_left + token_bytes : Wide{} + nowhere);
  }
  corners.right = right;
  corners.down = down;
}

// The corners of one query's points.
template <typename T, typename G>
class Corners {
 public:
  // Rows hold `padded` elements. Corners outside point to a row of zeros of this object's own.
  Corners(const PointTable<T>& table, int64_t padded)
      : table_(table), outside_(padded), blocks_(table.blocks().size()) {}

  // Locations (x, y) and attention weights of the table's points; tokens of the head lie at base + t * token_bytes.
  void prepare(const T* locations, const T* weights, G* base) {
    const int64_t whole = table_.size() / kLanes<T>, rest = table_.size() % kLanes<T>;
    for (int64_t b = 0; b < whole; ++b) {
      prepare_block(b, locations + 2 * b * kLanes<T>, weights + b * kLanes<T>, base);
    }
    if (rest == 0) return;
    T tail[3 * kLanes<T>] = {};  // nothing is read beyond the caller's last point
    std::copy_n(locations + 2 * whole * kLanes<T>, 2 * rest, tail);
    std::copy_n(weights + whole * kLanes<T>, rest, tail + 2 * kLanes<T>);
    prepare_block(whole, tail, tail + 2 * kLanes<T>, base);
  }

  int64_t size() const { return table_.size(); }
  const PointTable<T>& table() const { return table_; }
  const std::vector<CornerBlock<T, G>>& blocks() const { return blocks_; }

 private:
  DETRBENCH_INLINE void prepare_block(int64_t b, const T* locations, const T* weights, G* base) {
    detrbench::prepare<T, G>(table_.blocks()[b], locations, weights, base, table_.token_bytes(), outside_.data(), blocks_[b]);
  }

  const PointTable<T>& table_;
  std::vector<std::remove_const_t<G>> outside_;
  std::vector<CornerBlock<T, G>> blocks_;
};

// Calls body(block, lane, point) for each point of each block.
template <typename T, typename G, typename Body>
DETRBENCH_INLINE void for_each_point(const Corners<T, G>& corners, const Body& body) {
  int64_t point = 0;
  for (const CornerBlock<T, G>& block : corners.blocks()) {
    const int count = static_cast<int>(std::min<int64_t>(corners.size() - point, kLanes<T>));
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) body(block, i, point + i);
    point += count;
  }
}

}  // namespace detrbench
