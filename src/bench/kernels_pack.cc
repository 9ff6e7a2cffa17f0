// kernels: packing the weights of a file, which loading a model waits for.
#include <fmt/format.h>

#include "bench/kernels.h"
#include "quant/packed.h"

namespace kvasir::bench {
namespace {

using quant::TensorType;

constexpr TensorType kTypes[] = {TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ8_0,
                                 TensorType::kBF16};
constexpr size_t kWidth = 2048;  // rows and columns
constexpr size_t kSampleBytes = size_t{32} << 20;

// Both the rows of the file and their place come from memory, and only the former count.
base::Status report_pack(const KernelSetting& setting, TensorType type) {
  const quant::TensorTypeInfo& info = quant::tensor_type_info(type);
  const quant::PackedFormat format = quant::native_format(type);
  const size_t source_bytes = kWidth * quant::row_size_bytes(type, kWidth);
  const size_t packed_bytes = quant::packed_size_bytes(format, kWidth, kWidth);
  const size_t matrices = kSampleBytes / source_bytes;
  const size_t panels = kWidth / quant::kPanelRows;
  const auto sample = [&] {
    for (size_t i = 0; i < matrices; ++i) {
      const quant::PackSource source{.type = type,
                                     .rows = kWidth,
                                     .columns = kWidth,
                                     .bytes = setting.limits.next(source_bytes, 64)};
      const std::span<std::byte> packed = setting.limits.next(packed_bytes, 64);
      setting.pool.for_chunks(panels, 1, [&](size_t, base::Range range) {
        quant::pack_panels(source, format, range.begin, range.end, packed);
      });
    }
  };
  boost::json::object line = kernel_line(
      setting, fmt::format("pack {} {}x{}", info.name, kWidth, kWidth), setting.pool.threads());
  line["format"] = quant::format_name(format);
  line["rows"] = kWidth;
  line["columns"] = kWidth;
  const KernelWork work{.bytes = static_cast<double>(matrices * source_bytes)};
  ASSIGN_OR_RETURN([[maybe_unused]] const double seconds,
                   report_share(setting, work, std::move(line), sample));
  return {};
}

}  // namespace

base::Status report_packs(const KernelSetting& setting) {
  for (const TensorType type : kTypes) RETURN_IF_ERROR(report_pack(setting, type));
  return {};
}

}  // namespace kvasir::bench
