// The sizes of one call, as every device sees them.
#pragma once

#include <cstdint>

namespace detrbench {

struct Sizes {
  int64_t images;   // N
  int64_t tokens;   // S
  int64_t heads;    // M
  int64_t depth;    // D, channels of a head
  int64_t queries;  // Q
  int64_t levels;   // L
  int64_t points;   // P, of a level

  // Points of one query and head, over all levels.
  int64_t samples() const { return levels * points; }

  // Where a query's head stands in arrays by (image, query, head).
  int64_t row(int64_t image, int64_t head, int64_t query) const { return (image * queries + query) * heads + head; }
};

struct Level {
  int64_t height;
  int64_t width;
  int64_t start;  // first token
};

}  // namespace detrbench
