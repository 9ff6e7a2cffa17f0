// Complete streams in a file, one JSON object a line, so that another run can send the same
// requests and compare: {"index", "seed", "request", "text_sha256", "text", "tokens"}.
//
// Thread: one owner. Allocates: freely; a writer keeps nothing.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "bench/load_connection.h"

namespace kvasir::bench {

class RecordWriter {
 public:
  // Error: the file can not be made.
  static base::Result<RecordWriter> create(const std::string& path);
  void write(const StreamResult& result, uint64_t seed);
  // Error: something could not be written.
  base::Status close();

 private:
  RecordWriter(std::string path, std::ofstream file)
      : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  std::ofstream file_;
};

struct LoadRecord {
  LoadRequest request;
  std::string text;
  std::vector<TokenId> tokens;  // empty: the server did not tell
};

// Error: unreadable, or a line that no RecordWriter wrote.
base::Result<std::vector<LoadRecord>> read_records(const std::string& path);

// Where an answer differs from what was recorded; empty: nowhere.
std::string difference(const LoadRecord& record, const StreamAnswer& answer);

}  // namespace kvasir::bench
