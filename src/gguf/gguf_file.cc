#include "gguf/gguf_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "gguf/byte_reader.h"
#include "gguf/parse.h"

namespace kvasir::gguf {

uint64_t TensorInfo::elements() const {
  uint64_t product = 1;
  for (const uint64_t dimension : dimensions) product *= dimension;
  return product;
}

base::Result<GgufFile> GgufFile::open(const std::string& path) {
  GgufFile file;
  file.name_ = path;
  ASSIGN_OR_RETURN(file.mapped_, base::MappedFile::open(path));
  const auto bytes = file.mapped_.bytes();
  return parse_into(std::move(file), bytes);
}

base::Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  GgufFile file;
  file.name_ = name;
  return parse_into(std::move(file), bytes);
}

base::Result<GgufFile> GgufFile::parse_into(GgufFile file, std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(ParsedFile parsed, parse_container(bytes, file.name_));
  file.version_ = parsed.version;
  file.metadata_ = std::move(parsed.metadata);
  file.tensors_ = std::move(parsed.tensors);
  file.tensors_by_name_ = std::move(parsed.tensors_by_name);
  return file;
}

const std::string& GgufFile::name() const {
  return name_;
}
uint32_t GgufFile::version() const {
  return version_;
}
const std::vector<TensorInfo>& GgufFile::tensors() const {
  return tensors_;
}

const TensorInfo* GgufFile::find_tensor(std::string_view name) const {
  const auto name_of = [this](uint32_t i) { return std::string_view(tensors_[i].name); };
  const auto found = std::ranges::lower_bound(tensors_by_name_, name, {}, name_of);
  if (found == tensors_by_name_.end() || name_of(*found) != name) return nullptr;
  return &tensors_[*found];
}

const MetadataEntry* GgufFile::find_entry(std::string_view key) const {
  const auto found = std::ranges::lower_bound(metadata_, key, {}, &MetadataEntry::key);
  if (found == metadata_.end() || found->key != key) return nullptr;
  return &*found;
}

std::unexpected<base::Error> GgufFile::mismatch(const MetadataEntry& entry,
                                                std::string_view wanted) const {
  return base::bad_input(
      fmt::format("{}: key {} is {}{}, but {} is expected; convert the model again", name_,
                  printable(entry.key), entry.is_array ? "an array of " : "",
                  value_type_name(entry.type), wanted));
}

base::Result<const MetadataEntry*> GgufFile::find_shaped(std::string_view key, bool is_array,
                                                         std::string_view wanted) const {
  const MetadataEntry* entry = find_entry(key);
  if (entry != nullptr && entry->is_array != is_array) return mismatch(*entry, wanted);
  return entry;
}

bool GgufFile::has(std::string_view key) const {
  return find_entry(key) != nullptr;
}

base::Result<std::optional<uint64_t>> GgufFile::get_unsigned(std::string_view key) const {
  constexpr std::string_view kWanted = "a non-negative integer";
  ASSIGN_OR_RETURN(const MetadataEntry* entry, find_shaped(key, false, kWanted));
  if (entry == nullptr) return std::nullopt;
  if (entry->type == ValueType::kString) return mismatch(*entry, kWanted);
  const auto value = load_unsigned(entry->type, entry->bytes.data());
  if (!value) return mismatch(*entry, kWanted);
  return value;
}

base::Result<std::optional<double>> GgufFile::get_float(std::string_view key) const {
  constexpr std::string_view kWanted = "a floating-point number";
  ASSIGN_OR_RETURN(const MetadataEntry* entry, find_shaped(key, false, kWanted));
  if (entry == nullptr) return std::nullopt;
  const auto value = load_float(entry->type, entry->bytes.data());
  if (!value) return mismatch(*entry, kWanted);
  return value;
}

base::Result<std::optional<bool>> GgufFile::get_bool(std::string_view key) const {
  constexpr std::string_view kWanted = "BOOL";
  ASSIGN_OR_RETURN(const MetadataEntry* entry, find_shaped(key, false, kWanted));
  if (entry == nullptr) return std::nullopt;
  if (entry->type != ValueType::kBool) return mismatch(*entry, kWanted);
  return entry->bytes[0] != std::byte{0};
}

base::Result<std::optional<std::string_view>> GgufFile::get_string(std::string_view key) const {
  constexpr std::string_view kWanted = "STRING";
  ASSIGN_OR_RETURN(const MetadataEntry* entry, find_shaped(key, false, kWanted));
  if (entry == nullptr) return std::nullopt;
  if (entry->type != ValueType::kString) return mismatch(*entry, kWanted);
  return ByteReader(entry->bytes).string();
}

base::Result<std::optional<std::vector<std::string_view>>> GgufFile::get_strings(
    std::string_view key) const {
  constexpr std::string_view kWanted = "an array of STRING";
  ASSIGN_OR_RETURN(const MetadataEntry* entry, find_shaped(key, true, kWanted));
  if (entry == nullptr) return std::nullopt;
  if (entry->type != ValueType::kString) return mismatch(*entry, kWanted);
  std::vector<std::string_view> strings;
  strings.reserve(entry->count);
  ByteReader reader(entry->bytes);
  while (const auto text = reader.string()) strings.push_back(*text);
  return strings;
}

template <typename T, typename Load>
base::Result<std::optional<std::vector<T>>> GgufFile::get_numbers(std::string_view key,
                                                                  std::string_view wanted,
                                                                  const Load& load) const {
  ASSIGN_OR_RETURN(const MetadataEntry* entry, find_shaped(key, true, wanted));
  if (entry == nullptr) return std::nullopt;
  const auto element_bytes = fixed_size_bytes(entry->type);
  if (!element_bytes) return mismatch(*entry, wanted);
  std::vector<T> numbers;
  numbers.reserve(entry->count);
  for (uint64_t i = 0; i < entry->count; ++i) {
    const auto number = load(entry->type, entry->bytes.data() + i * *element_bytes);
    if (!number) return mismatch(*entry, wanted);
    numbers.push_back(static_cast<T>(*number));
  }
  return numbers;
}

base::Result<std::optional<std::vector<float>>> GgufFile::get_floats(std::string_view key) const {
  return get_numbers<float>(key, "an array of floating-point numbers", load_float);
}

base::Result<std::optional<std::vector<int64_t>>> GgufFile::get_integers(
    std::string_view key) const {
  return get_numbers<int64_t>(key, "an array of integers", load_signed);
}

}  // namespace kvasir::gguf
