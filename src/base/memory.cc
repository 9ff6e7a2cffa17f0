#include "base/memory.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace kvasir::base {
namespace {

std::optional<uint64_t> machine_available_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  std::string unit;
  for (uint64_t value = 0; file >> name >> value; std::getline(file, unit)) {
    if (name == "MemAvailable:") return value * 1024;
  }
  return std::nullopt;
}

// The number a file holds; nullopt: no such file, or a word such as "max".
std::optional<uint64_t> read_number(const char* path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

std::optional<uint64_t> room(const char* limit_path, const char* usage_path) {
  const auto limit = read_number(limit_path);
  const auto usage = read_number(usage_path);
  if (!limit || !usage) return std::nullopt;
  return *limit - std::min(*limit, *usage);
}

}  // namespace

std::optional<uint64_t> memory_available_bytes() {
  std::optional<uint64_t> least = machine_available_bytes();
  // Inside a container these are its own limits, version 2 and version 1.
  for (const auto& container : {room("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
                                room("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                     "/sys/fs/cgroup/memory/memory.usage_in_bytes")}) {
    if (container && (!least || *container < *least)) least = container;
  }
  return least;
}

}  // namespace kvasir::base
