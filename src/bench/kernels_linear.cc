// kernels: linear layers, from one token to a whole prompt.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "bench/kernels.h"

namespace kvasir::bench {
namespace {

using quant::PackedFormat;

constexpr PackedFormat kFormats[] = {PackedFormat::kQ4Min, PackedFormat::kQ4, PackedFormat::kQ8,
                                     PackedFormat::kBF16};
constexpr size_t kTokens[] = {1, 2, 4, 8, 16, 64, 512};
constexpr size_t kTokensMax = 512;
constexpr size_t kWidthMax = 4096;
// Up to here what a linear layer waits for is its weights.
constexpr size_t kMemoryBoundTokens = 4;
// A sample reads this much or computes that much, whatever is less, and at least one matrix.
constexpr size_t kSampleBytes = size_t{32} << 20;
constexpr double kSampleMacs = 0.5e9;
// A case that takes longer is the last of its shape: the next has more tokens.
constexpr double kSampleSecondsMax = 0.15;

struct Shape {
  size_t rows = 0;
  size_t columns = 0;
};
constexpr Shape kShapes[] = {{1536, 576}, {576, 1536}, {1024, 1024}, {2048, 2048}, {4096, 4096}};

// A megabyte of weights that repeats: codes of every value, scales and minima between 2^-8 and 2^8.
std::vector<std::byte> weight_pattern(PackedFormat format) {
  const size_t step = quant::step_bytes(format);
  const size_t code_bytes =
      !quant::is_integer(format) ? 0 : step - (quant::has_minimum(format) ? 128 : 64);
  std::vector<std::byte> pattern((size_t{1} << 20) / step * step);
  for (size_t at = 0; at < pattern.size(); at += 4) {
    uint32_t word = random_word(at / 4);
    if (!quant::is_integer(format)) {
      word = (word & 0x83ff83ffU) | 0x3c003c00U;
    } else if (at % step >= code_bytes) {
      word = (word & 0x8fff8fffU) | 0x20002000U;
    }
    std::memcpy(&pattern[at], &word, 4);
  }
  return pattern;
}

// Activations of the largest case, both ways, and room for its output.
class Activations {
 public:
  static base::Result<Activations> create(const kernels::KernelTable& kernels) {
    ASSIGN_OR_RETURN(base::AlignedBuffer codes,
                     base::AlignedBuffer::create(kTokensMax * kWidthMax));
    ASSIGN_OR_RETURN(base::AlignedBuffer output,
                     base::AlignedBuffer::create(kTokensMax * kWidthMax * sizeof(float)));
    return Activations(kernels, std::move(codes), std::move(output));
  }

  base::Span2D<const float> values(size_t tokens, size_t columns) const {
    return {values_.data(), tokens, columns};
  }
  base::Span2D<float> output(size_t tokens, size_t columns) const {
    return {output_.as<float>(0, tokens * columns).data(), tokens, columns};
  }
  quant::QuantizedRows quantized(size_t tokens, size_t columns) {
    const quant::QuantizedRows rows{.rows = tokens,
                                    .columns = columns,
                                    .codes = codes_.as<int8_t>(0, tokens * columns).data(),
                                    .scales = scales_.data(),
                                    .code_sums = code_sums_.data(),
                                    .sums = sums_.data()};
    kernels_->quantize(values(tokens, columns), 0, tokens, rows);
    return rows;
  }

 private:
  Activations(const kernels::KernelTable& kernels, base::AlignedBuffer codes,
              base::AlignedBuffer output)
      : kernels_(&kernels),
        values_(random_floats(kTokensMax * kWidthMax)),
        codes_(std::move(codes)),
        scales_(kTokensMax * kWidthMax / quant::kHalfColumns),
        code_sums_(scales_.size()),
        sums_(kTokensMax * kWidthMax / quant::kGroupColumns),
        output_(std::move(output)) {}

  const kernels::KernelTable* kernels_;
  std::vector<float> values_;
  base::AlignedBuffer codes_;
  std::vector<float> scales_;
  std::vector<int32_t> code_sums_;
  std::vector<float> sums_;
  base::AlignedBuffer output_;
};

// One matrix after the other, each a parallel stage that is shared out as the transformer does.
// Returns the seconds of a sample.
base::Result<double> report_linear(const KernelSetting& setting, Activations& activations,
                                   quant::PackedMatrix w, size_t tokens) {
  const size_t matrix_bytes = quant::packed_size_bytes(w.format, w.rows, w.columns);
  const double matrix_macs = static_cast<double>(w.rows * w.columns * tokens);
  const size_t matrices = std::clamp<size_t>(static_cast<size_t>(kSampleMacs / matrix_macs), 1,
                                             std::max<size_t>(1, kSampleBytes / matrix_bytes));
  const bool integer = quant::is_integer(w.format);
  const quant::QuantizedRows quantized =
      integer ? activations.quantized(tokens, w.columns) : quant::QuantizedRows{};
  const base::Span2D<const float> values = activations.values(tokens, w.columns);
  const base::Span2D<float> output = activations.output(tokens, w.rows);
  const size_t chunk = kernels::panels_at_once(w.panels(), setting.pool.threads());
  const auto sample = [&] {
    for (size_t i = 0; i < matrices; ++i) {
      w.data = setting.limits.next(matrix_bytes, quant::step_bytes(w.format)).data();
      setting.pool.for_chunks(w.panels(), chunk, [&](size_t, base::Range range) {
        const kernels::PanelRange panels{range.begin, range.end};
        if (integer) {
          setting.kernels.linear_q8(w, quantized, panels, output);
        } else {
          setting.kernels.linear_f32(w, values, panels, output);
        }
      });
    }
  };
  KernelWork work{.bytes = static_cast<double>(matrices * matrix_bytes),
                  .macs = static_cast<double>(matrices) * matrix_macs};
  if (tokens > kMemoryBoundTokens) work.peak = integer ? DotKind::kInt8 : DotKind::kF32;
  const std::string_view format = quant::format_name(w.format);
  boost::json::object line =
      kernel_line(setting, fmt::format("linear {} {}x{} m{}", format, w.rows, w.columns, tokens),
                  setting.pool.threads());
  line["format"] = format;
  line["rows"] = w.rows;
  line["columns"] = w.columns;
  line["tokens"] = tokens;
  return report_share(setting, work, std::move(line), sample);
}

}  // namespace

base::Status report_linears(const KernelSetting& setting) {
  ASSIGN_OR_RETURN(Activations activations, Activations::create(setting.kernels));
  for (const PackedFormat format : kFormats) {
    setting.limits.fill(weight_pattern(format));
    for (const auto& [rows, columns] : kShapes) {
      for (const size_t tokens : kTokens) {
        ASSIGN_OR_RETURN(
            const double seconds,
            report_linear(setting, activations,
                          {.format = format, .rows = rows, .columns = columns}, tokens));
        if (seconds > kSampleSecondsMax) break;
      }
    }
  }
  return {};
}

}  // namespace kvasir::bench
