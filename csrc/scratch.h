// Memory that outlives a call. Fresh pages cost more than the sums: 10,000 page faults doubled the time of one forward.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace detrbench {

// Each calling thread has one; worker threads are lent parts of it. Contents are undefined after `take`.
class Scratch {
 public:
  static Scratch& of_this_thread() {
    static thread_local Scratch scratch;
    return scratch;
  }

  void* take(size_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      memory_ = nullptr;
      size_ = (bytes + kPage - 1) / kPage * kPage;
      memory_ = std::aligned_alloc(kPage, size_);
      if (memory_ == nullptr) {
        size_ = 0;
        throw std::bad_alloc();
      }
#if defined(__linux__)
      madvise(memory_, size_, MADV_HUGEPAGE);  // gathers miss the TLB otherwise; only a wish, so failure is fine
#endif
    }
    return memory_;
  }

  // Called at the end of a call: a rare giant call must not hold its memory for ever.
  void trim() {
    if (size_ <= kKeep) return;
    std::free(memory_);
    memory_ = nullptr;
    size_ = 0;
  }

  ~Scratch() { std::free(memory_); }

 private:
  static constexpr size_t kPage = size_t(2) << 20;
  static constexpr size_t kKeep = size_t(512) << 20;
  void* memory_ = nullptr;
  size_t size_ = 0;
};

}  // namespace detrbench
