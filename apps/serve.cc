// kvasir serve: an OpenAI-compatible server. The first SIGTERM or Ctrl-C lets answers under way
// finish, the second ends the process.
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "apps/command.h"
#include "serve/api_server.h"

namespace kvasir::apps {
namespace {

constexpr auto kLook = std::chrono::milliseconds(20);

struct Flags {
  api::EngineFlags engine;
  serve::ServeFlags serve;
};

void add_network_flags(CLI::App& command, serve::ServeFlags& flags) {
  command.add_option("--host", flags.host, "address to listen on")->capture_default_str();
  command.add_option("--port", flags.port, "0: any free one")->capture_default_str();
  command.add_option("--admin-port", flags.admin_port,
                     "metrics, cache statistics and reset on a listener of their own");
  command.add_option("--admin-host", flags.admin_host, "its address")->capture_default_str();
  command.add_option("--api-key", flags.api_keys, "a key that clients must send (repeatable)");
  command.add_option("--api-key-file", flags.api_key_file,
                     "keys with their tenants: NAME sha256:HEX [weight=W] [requests=N] [admin]");
  command.add_option("--tls-cert", flags.tls_certificate,
                     "speak TLS: PEM file with the server's certificate, then its issuers'");
  command.add_option("--tls-key", flags.tls_key, "PEM file with the certificate's private key");
  command.add_flag("--insecure", flags.insecure, "listen beyond this machine without keys");
  command.add_option("--allow-host", flags.allowed_hosts,
                     "a further name in Host and Origin headers (repeatable)");
  command.add_option("--max-body", flags.max_body_bytes, "largest request in bytes")
      ->capture_default_str();
}

void add_queue_flags(CLI::App& command, serve::ServeFlags& flags) {
  command.add_option("--max-queue", flags.max_queue, "answers that may wait")
      ->capture_default_str();
  command.add_option("--max-queue-tokens", flags.max_queue_tokens,
                     "prompt and answer tokens that may wait or run (default: 8 million, or twice "
                     "the context times --max-sequences)");
  command
      .add_option("--itl-target-ms", flags.itl_target_ms,
                  "prompts leave answers under way such a pace; 0: no bound")
      ->capture_default_str();
  command
      .add_option("--queue-timeout", flags.queue_timeout_s, "seconds a request may wait; 0: any")
      ->capture_default_str();
  command.add_option("--first-token-timeout", flags.first_token_timeout_s,
                     "seconds until the first token; 0: any");
  command.add_option("--request-timeout", flags.request_timeout_s,
                     "seconds for a whole request; 0: any");
  command
      .add_option("--drain-timeout", flags.drain_timeout_s,
                  "seconds that answers may take after SIGTERM; 0: any")
      ->capture_default_str();
}

void print_plan(const api::Llm& llm, const api::MemoryUse& memory) {
  fmt::print(stderr,
             "kvasir: memory: {:.1f} MiB weights, {:.1f} MiB KV cache ({} tokens), {:.1f} MiB "
             "activations\n",
             static_cast<double>(memory.weights_bytes) / 0x1p20,
             static_cast<double>(memory.kv_bytes) / 0x1p20,
             memory.kv_bytes / std::max<uint64_t>(llm.bytes_per_token(), 1),
             static_cast<double>(memory.activations_bytes) / 0x1p20);
}

void print_listening(const serve::ApiServer& server, const serve::ServeFlags& flags) {
  fmt::print(stderr, "kvasir: at most {} connections\n", server.connections_max());
  const char* scheme = flags.tls_certificate ? "https" : "http";
  if (const auto admin_port = server.admin_port()) {
    fmt::print(stderr, "kvasir: admin listener on {}://{}:{}\n", scheme, flags.admin_host,
               *admin_port);
  }
  fmt::print(stderr, "kvasir: listening on {}://{}:{}\n", scheme, flags.host, server.port());
}

// Until everything has been answered, or the time for it is over.
void drain(serve::ApiServer& server, double timeout_s) {
  server.log().info("drain", "no more requests; waiting for those under way");
  server.drain();
  const auto began = std::chrono::steady_clock::now();
  while (!server.drained()) {
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - began;
    if (timeout_s > 0.0 && waited.count() > timeout_s) {
      server.log().error("drain", "time is over; ending what is left");
      return;
    }
    std::this_thread::sleep_for(kLook);
  }
}

CommandResult run_serve(const Flags& flags) {
  ASSIGN_OR_RETURN(serve::Credentials credentials, serve::check_flags(flags.serve));
  ASSIGN_OR_RETURN(api::EngineOptions options, api::parse_options(flags.engine));
  options = serve::server_engine(flags.serve, credentials.keys, std::move(options));
  ASSIGN_OR_RETURN(std::unique_ptr<api::Llm> llm, load_llm(options));
  print_plan(*llm, llm->memory_use());
  ASSIGN_OR_RETURN(const auto server, serve::ApiServer::start(flags.serve, std::move(credentials),
                                                              std::move(llm), KVASIR_VERSION));
  print_listening(*server, flags.serve);
  while (!interrupted()) {
    server->watch();
    std::this_thread::sleep_for(kLook);
  }
  drain(*server, flags.serve.drain_timeout_s);
  return kOk;
}

}  // namespace

void add_serve(CLI::App& cli, Action& action) {
  auto flags = std::make_shared<Flags>();
  flags->engine.max_sequences = 32;
  CLI::App* command = cli.add_subcommand("serve", "serve the OpenAI API over HTTP");
  add_engine_flags(*command, flags->engine);
  add_network_flags(*command, flags->serve);
  add_queue_flags(*command, flags->serve);
  command->add_option("--served-model-name", flags->serve.model_name,
                      "the model's name in the API (default: from the file)");
  command->add_option("--log-format", flags->serve.log_format, "text or json")
      ->capture_default_str();
  command->add_option("--log-level", flags->serve.log_level, "debug, info, warning or error")
      ->capture_default_str();
  command->callback([flags, &action] { action = [flags] { return run_serve(*flags); }; });
}

}  // namespace kvasir::apps
