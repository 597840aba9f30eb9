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
};

struct Level {
  int64_t height;
  int64_t width;
  int64_t start;  // first token
};

}  // namespace detrbench
