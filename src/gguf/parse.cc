#include "gguf/parse.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "base/checked_math.h"
#include "gguf/byte_reader.h"

namespace kvasir::gguf {
namespace {

constexpr uint64_t kMaxKeys = 65536;
constexpr uint64_t kMaxTensors = 65536;
constexpr uint64_t kMaxKeyBytes = 65536;
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 21;
constexpr uint64_t kMaxMetadataBytes = uint64_t{48} << 20;
constexpr uint64_t kMaxTensorNameBytes = 63;
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kMaxDimension = uint64_t{1} << 40;
constexpr uint64_t kMinAlignment = 8;
constexpr uint64_t kMaxAlignment = 65536;
constexpr uint64_t kDefaultAlignment = 32;

// The smallest encodings: a count larger than remaining / minimum can not be true.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;             // one-letter key, type, u8
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // one-letter name, one dimension
constexpr uint64_t kMinStringBytes = 8;

constexpr std::string_view kDamaged = "the file is damaged, fetch it again";
constexpr std::string_view kUnsupported = "convert the model again with a current GGUF converter";

// One pass over the file; the order of the member functions is the order of the format.
class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& name)
      : bytes_(bytes), name_(name), reader_(bytes) {}

  base::Result<ParsedFile> parse();

 private:
  struct Extent {
    uint64_t begin;  // relative to the data section
    uint64_t end;
    uint32_t tensor;
  };

  std::unexpected<base::Error> refuse(std::string_view field, uint64_t offset,
                                      std::string_view problem,
                                      std::string_view advice = kDamaged) const;
  // The number at the position of the reader; `field` names it when the file ends inside it.
  template <typename T>
  base::Result<T> number(std::string_view field);

  base::Status parse_header();
  base::Status parse_version();
  base::Result<uint64_t> parse_count(std::string_view field, uint64_t limit);
  base::Status check_count(std::string_view field, uint64_t count, uint64_t min_bytes);

  base::Status parse_keys();
  base::Result<std::string_view> parse_key(uint64_t index);
  base::Status parse_value(MetadataEntry& entry);
  base::Result<ValueType> parse_type(const std::string& field);
  base::Status parse_array(MetadataEntry& entry);
  base::Status parse_elements(MetadataEntry& entry, const std::string& field);
  base::Status check_metadata_size(const std::string& field) const;
  base::Status check_bools(const MetadataEntry& entry, const std::string& field) const;
  base::Status sort_keys();
  base::Status read_alignment();

  base::Status parse_tensors();
  base::Status parse_tensor(uint64_t index);
  base::Result<std::string_view> parse_tensor_name(uint64_t index);
  base::Status parse_dimensions(TensorInfo& tensor, const std::string& field);
  base::Status parse_tensor_type(TensorInfo& tensor, const std::string& field);
  base::Status sort_tensor_names();
  base::Status place_tensors();
  base::Status place_tensor(uint32_t index, std::span<const std::byte> data);
  base::Status check_overlaps();

  uint64_t offset_of(std::string_view text) const {
    return static_cast<uint64_t>(reinterpret_cast<const std::byte*>(text.data()) - bytes_.data());
  }

  std::span<const std::byte> bytes_;
  const std::string& name_;
  ByteReader reader_;
  uint64_t keys_ = 0;
  uint64_t tensors_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<uint64_t> offset_positions_;  // where each tensor's offset field lies in the file
  std::vector<uint64_t> offsets_;           // that field, relative to the data section
  std::vector<Extent> extents_;
  ParsedFile parsed_;
};

std::unexpected<base::Error> Parser::refuse(std::string_view field, uint64_t offset,
                                            std::string_view problem,
                                            std::string_view advice) const {
  return base::bad_input(
      fmt::format("{}: {} at byte {}: {}; {}", name_, field, offset, problem, advice));
}

template <typename T>
base::Result<T> Parser::number(std::string_view field) {
  const uint64_t offset = reader_.position();
  if (const auto value = reader_.number<T>()) return *value;
  return refuse(field, offset, "the file ends here");
}

base::Result<ParsedFile> Parser::parse() {
  RETURN_IF_ERROR(parse_header());
  RETURN_IF_ERROR(parse_keys());
  RETURN_IF_ERROR(parse_tensors());
  RETURN_IF_ERROR(place_tensors());
  return std::move(parsed_);
}

base::Status Parser::parse_header() {
  const auto magic = reader_.take(4);
  if (!magic || as_text(*magic) != "GGUF") {
    return refuse("magic", 0, "not a GGUF file", "give the path of a .gguf model");
  }
  RETURN_IF_ERROR(parse_version());
  ASSIGN_OR_RETURN(tensors_, parse_count("tensor count", kMaxTensors));
  ASSIGN_OR_RETURN(keys_, parse_count("key count", kMaxKeys));
  return {};
}

base::Status Parser::parse_version() {
  const uint64_t offset = reader_.position();
  ASSIGN_OR_RETURN(parsed_.version, number<uint32_t>("version"));
  if (parsed_.version == 2 || parsed_.version == 3) return {};
  if (parsed_.version != 0 && (parsed_.version & 0xffffU) == 0) {
    return refuse("version", offset, "the file is big endian", kUnsupported);
  }
  return refuse("version", offset,
                fmt::format("{} is not supported (2 and 3 are)", parsed_.version), kUnsupported);
}

base::Result<uint64_t> Parser::parse_count(std::string_view field, uint64_t limit) {
  const uint64_t offset = reader_.position();
  ASSIGN_OR_RETURN(const uint64_t count, number<uint64_t>(field));
  if (count > limit) {
    return refuse(field, offset, fmt::format("{} is more than {}", count, limit));
  }
  return count;
}

base::Status Parser::check_count(std::string_view field, uint64_t count, uint64_t min_bytes) {
  if (count <= reader_.remaining() / min_bytes) return {};
  return refuse(
      field, reader_.position(),
      fmt::format("{} can not fit in the remaining {} bytes", count, reader_.remaining()));
}

base::Status Parser::parse_keys() {
  RETURN_IF_ERROR(check_count("key count", keys_, kMinKeyBytes));
  parsed_.metadata.reserve(keys_);
  for (uint64_t i = 0; i < keys_; ++i) {
    MetadataEntry entry;
    ASSIGN_OR_RETURN(entry.key, parse_key(i));
    RETURN_IF_ERROR(parse_value(entry));
    parsed_.metadata.push_back(entry);
  }
  RETURN_IF_ERROR(sort_keys());
  return read_alignment();
}

base::Result<std::string_view> Parser::parse_key(uint64_t index) {
  const uint64_t offset = reader_.position();
  const std::string field = fmt::format("key {}", index);
  const auto key = reader_.string();
  if (!key) return refuse(field, offset, "its length passes the end of the file");
  if (key->empty()) return refuse(field, offset, "the key is empty");
  if (key->size() > kMaxKeyBytes) {
    return refuse(field, offset,
                  fmt::format("{} bytes are more than {}", key->size(), kMaxKeyBytes));
  }
  return *key;
}

base::Result<ValueType> Parser::parse_type(const std::string& field) {
  const uint64_t offset = reader_.position();
  ASSIGN_OR_RETURN(const uint32_t id, number<uint32_t>(field));
  if (const auto type = parse_value_type(id)) return *type;
  return refuse(field, offset, fmt::format("{} is not a value type", id));
}

base::Status Parser::parse_value(MetadataEntry& entry) {
  const std::string key = printable(entry.key);
  ASSIGN_OR_RETURN(entry.type, parse_type(fmt::format("type of key {}", key)));
  if (entry.type == ValueType::kArray) return parse_array(entry);
  return parse_elements(entry, fmt::format("value of key {}", key));
}

base::Status Parser::parse_array(MetadataEntry& entry) {
  const std::string key = printable(entry.key);
  const std::string type_field = fmt::format("element type of key {}", key);
  const uint64_t type_offset = reader_.position();
  ASSIGN_OR_RETURN(entry.type, parse_type(type_field));
  if (entry.type == ValueType::kArray) {
    return refuse(type_field, type_offset, "arrays of arrays are not supported", kUnsupported);
  }
  entry.is_array = true;
  const std::string count_field = fmt::format("element count of key {}", key);
  ASSIGN_OR_RETURN(entry.count, parse_count(count_field, kMaxArrayElements));
  RETURN_IF_ERROR(check_count(count_field, entry.count,
                              fixed_size_bytes(entry.type).value_or(kMinStringBytes)));
  return parse_elements(entry, fmt::format("elements of key {}", key));
}

base::Status Parser::parse_elements(MetadataEntry& entry, const std::string& field) {
  const uint64_t begin = reader_.position();
  if (const auto element_bytes = fixed_size_bytes(entry.type)) {
    // Can not overflow: the count is limited.
    const auto taken = reader_.take(entry.count * *element_bytes);
    if (!taken) return refuse(field, begin, "the file ends inside it");
    entry.bytes = *taken;
    RETURN_IF_ERROR(check_metadata_size(field));
    return check_bools(entry, field);
  }
  for (uint64_t i = 0; i < entry.count; ++i) {
    const uint64_t offset = reader_.position();
    if (!reader_.string()) {
      return refuse(field, offset, fmt::format("string {} passes the end of the file", i));
    }
    RETURN_IF_ERROR(check_metadata_size(field));
  }
  entry.bytes = bytes_.subspan(begin, reader_.position() - begin);
  return {};
}

// Bounds the time that strings of absurd length in a huge sparse file can take.
base::Status Parser::check_metadata_size(const std::string& field) const {
  if (reader_.position() <= kMaxMetadataBytes) return {};
  return refuse(field, reader_.position(),
                fmt::format("the metadata is longer than {} bytes", kMaxMetadataBytes));
}

base::Status Parser::check_bools(const MetadataEntry& entry, const std::string& field) const {
  if (entry.type != ValueType::kBool) return {};
  const auto* bad =
      std::ranges::find_if(entry.bytes.data(), entry.bytes.data() + entry.bytes.size(),
                           [](std::byte value) { return value > std::byte{1}; });
  if (bad == entry.bytes.data() + entry.bytes.size()) return {};
  return refuse(field, static_cast<uint64_t>(bad - bytes_.data()),
                fmt::format("{} is neither true nor false", std::to_integer<int>(*bad)));
}

base::Status Parser::sort_keys() {
  std::ranges::sort(parsed_.metadata, {}, &MetadataEntry::key);
  const auto twin = std::ranges::adjacent_find(parsed_.metadata, {}, &MetadataEntry::key);
  if (twin == parsed_.metadata.end()) return {};
  return refuse(fmt::format("key {}", printable(twin->key)),
                std::max(offset_of(twin->key), offset_of(std::next(twin)->key)),
                "the key appears twice");
}

base::Status Parser::read_alignment() {
  constexpr std::string_view kKey = "general.alignment";
  const auto entry = std::ranges::lower_bound(parsed_.metadata, kKey, {}, &MetadataEntry::key);
  if (entry == parsed_.metadata.end() || entry->key != kKey) return {};
  const std::string field = fmt::format("value of key {}", printable(kKey));
  const auto offset = static_cast<uint64_t>(entry->bytes.data() - bytes_.data());
  if (entry->is_array || entry->type != ValueType::kUint32) {
    return refuse(field, offset, "it must be UINT32");
  }
  alignment_ = load_number<uint32_t>(entry->bytes.data());
  if (std::has_single_bit(alignment_) && alignment_ >= kMinAlignment &&
      alignment_ <= kMaxAlignment) {
    return {};
  }
  return refuse(field, offset,
                fmt::format("{} is not a power of two from {} to {}", alignment_, kMinAlignment,
                            kMaxAlignment));
}

base::Status Parser::parse_tensors() {
  RETURN_IF_ERROR(check_count("tensor count", tensors_, kMinTensorBytes));
  parsed_.tensors.reserve(tensors_);
  offsets_.reserve(tensors_);
  offset_positions_.reserve(tensors_);
  for (uint64_t i = 0; i < tensors_; ++i) RETURN_IF_ERROR(parse_tensor(i));
  return sort_tensor_names();
}

base::Status Parser::parse_tensor(uint64_t index) {
  TensorInfo tensor;
  ASSIGN_OR_RETURN(tensor.name, parse_tensor_name(index));
  const std::string shown_name = printable(tensor.name);
  RETURN_IF_ERROR(parse_dimensions(tensor, fmt::format("dimensions of tensor {}", shown_name)));
  RETURN_IF_ERROR(parse_tensor_type(tensor, fmt::format("type of tensor {}", shown_name)));
  offset_positions_.push_back(reader_.position());
  ASSIGN_OR_RETURN(const uint64_t offset,
                   number<uint64_t>(fmt::format("offset of tensor {}", shown_name)));
  offsets_.push_back(offset);
  parsed_.tensors.push_back(std::move(tensor));
  return {};
}

base::Result<std::string_view> Parser::parse_tensor_name(uint64_t index) {
  const uint64_t offset = reader_.position();
  const std::string field = fmt::format("name of tensor {}", index);
  const auto name = reader_.string();
  if (!name) return refuse(field, offset, "its length passes the end of the file");
  if (name->empty() || name->size() > kMaxTensorNameBytes) {
    return refuse(field, offset,
                  fmt::format("{} bytes are not 1 to {}", name->size(), kMaxTensorNameBytes));
  }
  return *name;
}

base::Status Parser::parse_dimensions(TensorInfo& tensor, const std::string& field) {
  const uint64_t count_offset = reader_.position();
  ASSIGN_OR_RETURN(const uint32_t count, number<uint32_t>(field));
  if (count < 1 || count > kMaxDimensions) {
    return refuse(field, count_offset, fmt::format("{} are not 1 to {}", count, kMaxDimensions));
  }
  tensor.dimensions.reserve(count);
  std::optional<uint64_t> elements = 1;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t offset = reader_.position();
    ASSIGN_OR_RETURN(const uint64_t dimension, number<uint64_t>(field));
    if (dimension < 1 || dimension > kMaxDimension) {
      return refuse(field, offset, fmt::format("{} is not 1 to {}", dimension, kMaxDimension));
    }
    elements = base::checked_mul(*elements, dimension);
    if (!elements) return refuse(field, offset, "their product overflows");
    tensor.dimensions.push_back(dimension);
  }
  return {};
}

base::Status Parser::parse_tensor_type(TensorInfo& tensor, const std::string& field) {
  const uint64_t offset = reader_.position();
  ASSIGN_OR_RETURN(tensor.type_id, number<uint32_t>(field));
  if (!quant::tensor_type_name(tensor.type_id)) {
    return refuse(field, offset, fmt::format("{} is not a tensor type", tensor.type_id),
                  "use a build that knows it, or fetch the file again");
  }
  const quant::TensorTypeInfo* info = quant::find_tensor_type(tensor.type_id);
  if (info != nullptr && tensor.dimensions[0] % info->block_elements != 0) {
    return refuse(field, offset,
                  fmt::format("rows of {} elements are not whole {} blocks of {}",
                              tensor.dimensions[0], info->name, info->block_elements));
  }
  return {};
}

base::Status Parser::sort_tensor_names() {
  const auto name_of = [this](uint32_t i) -> const std::string& { return parsed_.tensors[i].name; };
  parsed_.tensors_by_name.resize(parsed_.tensors.size());
  std::iota(parsed_.tensors_by_name.begin(), parsed_.tensors_by_name.end(), 0U);
  std::ranges::sort(parsed_.tensors_by_name, {}, name_of);
  const auto twin = std::ranges::adjacent_find(parsed_.tensors_by_name, {}, name_of);
  if (twin == parsed_.tensors_by_name.end()) return {};
  return refuse(fmt::format("tensor {}", printable(name_of(*twin))),
                offset_positions_[std::max(*twin, *std::next(twin))], "the name appears twice");
}

base::Status Parser::place_tensors() {
  if (parsed_.tensors.empty()) return {};
  const uint64_t begin = base::align_up(reader_.position(), alignment_);
  if (begin >= bytes_.size()) {
    return refuse("data section", begin, fmt::format("the file ends at {}", bytes_.size()));
  }
  const auto data = bytes_.subspan(begin);
  extents_.reserve(parsed_.tensors.size());
  for (uint32_t i = 0; i < parsed_.tensors.size(); ++i) RETURN_IF_ERROR(place_tensor(i, data));
  return check_overlaps();
}

base::Status Parser::place_tensor(uint32_t index, std::span<const std::byte> data) {
  TensorInfo& tensor = parsed_.tensors[index];
  const uint64_t offset = offsets_[index];
  const auto refuse_offset = [&](std::string_view problem) {
    return refuse(fmt::format("offset of tensor {}", printable(tensor.name)),
                  offset_positions_[index], problem);
  };
  if (offset % alignment_ != 0) {
    return refuse_offset(fmt::format("{} is not a multiple of {}", offset, alignment_));
  }
  if (offset >= data.size()) {
    return refuse_offset(fmt::format("{} passes the {} bytes of data", offset, data.size()));
  }
  const quant::TensorTypeInfo* info = quant::find_tensor_type(tensor.type_id);
  if (info == nullptr) {  // of unknown size, but not empty
    extents_.push_back({offset, offset + 1, index});
    return {};
  }
  const auto size_bytes =
      base::checked_mul(tensor.elements() / info->block_elements, info->block_bytes);
  if (!size_bytes || *size_bytes > data.size() - offset) {
    return refuse_offset(
        fmt::format("the tensor passes the end of the file: {} elements of {} from {} in {} bytes",
                    tensor.elements(), info->name, offset, data.size()));
  }
  tensor.bytes = data.subspan(offset, *size_bytes);
  extents_.push_back({offset, offset + *size_bytes, index});
  return {};
}

base::Status Parser::check_overlaps() {
  std::ranges::sort(extents_, {}, [](const Extent& e) { return std::pair(e.begin, e.tensor); });
  const auto pair = std::ranges::adjacent_find(
      extents_, [](const Extent& a, const Extent& b) { return a.end > b.begin; });
  if (pair == extents_.end()) return {};
  const Extent& first = *pair;
  const Extent& second = *std::next(pair);
  return refuse(
      fmt::format("offset of tensor {}", printable(parsed_.tensors[second.tensor].name)),
      offset_positions_[second.tensor],
      fmt::format("it overlaps tensor {}", printable(parsed_.tensors[first.tensor].name)));
}

}  // namespace

base::Result<ParsedFile> parse_container(std::span<const std::byte> bytes,
                                         const std::string& name) {
  return Parser(bytes, name).parse();
}

}  // namespace kvasir::gguf
