#include "bench/load.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/connect.hpp>

#include "bench/load_client.h"
#include "bench/load_record.h"
#include "bench/load_report.h"
#include "bench/load_request.h"

namespace kvasir::bench {
namespace {

namespace asio = boost::asio;

constexpr uint64_t kFilesReserve = 64;  // beside sockets

base::Status check_options(const LoadOptions& options) {
  if (options.shared_prefix > options.tokens) {
    return base::bad_input(fmt::format("--shared-prefix {}: a prompt has only {} tokens (--tokens)",
                                       options.shared_prefix, options.tokens));
  }
  if (options.flood > 1 && options.api_keys.size() < 2) {
    return base::bad_input("--flood needs the keys of two tenants: --api-key FLOODER --api-key K");
  }
  return {};
}

// Each stream is a file of this process: raises the limit as far as it goes. With a rate nobody
// knows how many will be open; those for which no file is left are counted as failures.
base::Status allow_streams(const LoadOptions& options) {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return {};
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (options.rate || files.rlim_max >= options.sequences + kFilesReserve) return {};
  return base::bad_input(
      fmt::format("--sequences {}: this process may open {} files; raise the limit (ulimit -n)",
                  options.sequences, files.rlim_max));
}

// Finds the server and sees that somebody listens there.
base::Result<LoadTarget> find_server(const std::string& url) {
  ASSIGN_OR_RETURN(const ServerAddress address, parse_server_url(url));
  asio::io_context io;
  boost::system::error_code error;
  const auto found = asio::ip::tcp::resolver(io).resolve(
      address.host, std::to_string(address.port), asio::ip::tcp::resolver::numeric_service, error);
  asio::ip::tcp::socket socket(io);
  LoadTarget target{.authority = address.authority};
  if (!error) target.endpoint = asio::connect(socket, found, error);
  if (error) {
    return base::runtime_error(
        fmt::format("--url {}: {}; is the server running?", url, error.message()));
  }
  return target;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// What this process has used since the stopwatch was started.
class Usage {
 public:
  double wall_s() const { return static_cast<double>(load_clock_us() - start_us_) / 1e6; }
  double cpu_pct() const { return 100.0 * (cpu_seconds() - start_cpu_s_) / wall_s(); }

 private:
  uint64_t start_us_ = load_clock_us();
  double start_cpu_s_ = cpu_seconds();
};

std::string case_name(const LoadOptions& options) {
  const std::string tokens = fmt::format("{}+{}", options.tokens, options.generate);
  if (options.rate) return fmt::format("{}/s {}", *options.rate, tokens);
  return fmt::format("{}x {}", options.sequences, tokens);
}

LoadPlan make_plan(const LoadOptions& options) {
  LoadPlan plan{.api_keys = options.api_keys,
                .streams_max = options.sequences,
                .requests = options.requests,
                .rate = options.rate,
                .seed = options.seed,
                .timeout_us = static_cast<uint64_t>(options.timeout_s * 1e6)};
  if (options.duration_s) plan.duration_us = static_cast<uint64_t>(*options.duration_s * 1e6);
  if (!options.requests && !options.duration_s) plan.requests = options.sequences;
  return plan;
}

void write_lines(const LoadOptions& options, const LoadReport& report, const Usage& usage,
                 const BenchHooks& hooks) {
  const double wall_s = usage.wall_s();
  boost::json::object line = machine_line("load", case_name(options));
  line["tokens"] = options.tokens;
  line["generate"] = options.generate;
  line["shared_prefix"] = options.shared_prefix;
  report.write(line, wall_s);
  line["client_cpu_pct"] = usage.cpu_pct();
  hooks.on_line(line);
  if (report.tenants() < 2) return;
  for (size_t tenant = 0; tenant < report.tenants(); ++tenant) {
    boost::json::object tenant_line = machine_line("load", fmt::format("tenant {}", tenant));
    report.write_tenant(tenant_line, tenant, wall_s);
    hooks.on_line(tenant_line);
  }
}

base::Status measure(const LoadOptions& options, const LoadTarget& target,
                     const BenchHooks& hooks) {
  std::optional<RecordWriter> records;
  if (options.check_file) {
    ASSIGN_OR_RETURN(records, RecordWriter::create(*options.check_file));
  }
  LoadReport report(std::max<size_t>(options.api_keys.size(), 1));
  const LoadHooks load{.request = [&](uint64_t index) { return make_load_request(options, index); },
                       .on_result =
                           [&](const StreamResult& result) {
                             report.add(result);
                             if (records && result.outcome == Outcome::kOk)
                               records->write(result, options.seed);
                           }};
  LoadClient client(target, make_plan(options), load, hooks);
  const Usage usage;
  RETURN_IF_ERROR(client.run());
  write_lines(options, report, usage, hooks);
  if (records) RETURN_IF_ERROR(records->close());
  if (report.failed() == 0) return {};
  return base::runtime_error(
      fmt::format("load: {} streams failed, first {}", report.failed(), report.first_failure()));
}

// Sends recorded requests one at a time, so that nothing else runs beside them.
base::Status verify(const LoadOptions& options, const LoadTarget& target, const BenchHooks& hooks) {
  ASSIGN_OR_RETURN(const std::vector<LoadRecord> records, read_records(*options.verify_file));
  const size_t wanted = options.samples == 0 ? records.size() : options.samples;
  const std::vector<size_t> samples = draw_samples(records.size(), wanted, options.seed);
  uint64_t same = 0;
  std::string first;
  const auto compare = [&](const StreamResult& result, const LoadRecord& record) {
    std::string wrong = result.outcome == Outcome::kOk
                            ? difference(record, result.answer)
                            : fmt::format("{} {}", outcome_name(result.outcome), result.detail);
    if (wrong.empty()) return void(++same);
    if (first.empty()) first = fmt::format("request {}: {}", record.request.index, wrong);
  };
  size_t compared = 0;
  const LoadHooks load{
      .request = [&](uint64_t index) { return records[samples[index]].request; },
      .on_result =
          [&](const StreamResult& result) { compare(result, records[samples[compared++]]); }};
  LoadPlan plan{.api_keys = options.api_keys,
                .requests = samples.size(),
                .timeout_us = static_cast<uint64_t>(options.timeout_s * 1e6)};
  LoadClient client(target, std::move(plan), load, hooks);
  RETURN_IF_ERROR(client.run());
  boost::json::object line = machine_line("load", "verify");
  line["requests"] = samples.size();
  line["same"] = same;
  line["different"] = samples.size() - same;
  hooks.on_line(line);
  if (same == samples.size()) return {};
  return base::runtime_error(fmt::format("--verify {}: {} of {} streams differ, first {}",
                                         *options.verify_file, samples.size() - same,
                                         samples.size(), first));
}

}  // namespace

base::Status bench_load(const LoadOptions& options, const BenchHooks& hooks) {
  RETURN_IF_ERROR(check_options(options));
  RETURN_IF_ERROR(allow_streams(options));
  ASSIGN_OR_RETURN(const LoadTarget target, find_server(options.url));
  return options.verify_file ? verify(options, target, hooks) : measure(options, target, hooks);
}

}  // namespace kvasir::bench
